"""The arrays of `recipes.check.forms`, tokens with a mask and class maps, as tensors and as a data set."""

import torch


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
