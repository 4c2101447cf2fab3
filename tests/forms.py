"""Data of other forms than images with one label: tokens with a mask, and class maps; what is learned from them is in them."""

from functools import cache

import numpy as np
import torch

IGNORED = 255


@cache
def tokens(samples=90, length=7, vocabulary=11):
    """Arrays of tokens, their mask, and classes: how many of the tokens that are there are below 4, up to 2."""
    random = np.random.default_rng(0)
    mask = np.arange(length) < random.integers(1, length + 1, (samples, 1))
    found = random.integers(0, vocabulary, (samples, length))
    found[0, 0], mask[:3] = vocabulary - 1, True
    return {"tokens": found, "mask": mask, "y": np.minimum(((found < 4) & mask).sum(1), 2)}


@cache
def maps(samples=80, size=8, ignored=True):
    """Arrays of images of bytes and maps of three classes, by how bright a pixel is; some pixels are ignored."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (samples, size, size)).astype(np.uint8)
    y = x.astype(np.int64) // 86
    if ignored:
        y[random.random(y.shape) < 0.2] = IGNORED
        y[4, :, :] = IGNORED
    return {"x": x, "y": y}


def as_tensors(arrays):
    """The arrays as what a loader yields: inputs, and targets."""
    found = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    y = found.pop("y")
    return (found["x"].float().div(255).unsqueeze(1), y) if "x" in found else (found, y)


class Pairs(torch.utils.data.Dataset):
    """A data set of somebody's own, whose items are a dict of inputs and a target."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return {name: value[index] for name, value in self.inputs.items()}, self.targets[index]
