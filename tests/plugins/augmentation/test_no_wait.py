"""Over all augmentations of conf/: nothing waits for the device.

On a device of torch's that has shapes and no numbers, whatever reads a number from the device fails by itself: `item`, a truth test,
`nonzero`, a choice by a mask. Of what is copied to the device calls tell: a copy that is not asked not to wait does.
"""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from plugins.base import Batch
from recipes.check.choice import options, plugin_class
from tests.plugins.augmentation.built import built

NAMES = [name for name in options() if name.startswith("augmentation/")]
SHAPES = ((3, 16, 20), (1, 16, 20), (12, 5), (12,))  # the first that an augmentation takes
SAMPLES, CLASSES, META = 12, 5, torch.device("meta")


class Calls(TorchFunctionMode):
    """Collects calls that copy numbers to the device, or between devices, and wait for it."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def __torch_function__(self, function, types, arguments=(), named=None):
        named, name = named or {}, getattr(function, "__name__", "")
        found = function(*arguments, **named)
        if name in ("tensor", "as_tensor", "new_tensor") and found.device == META:
            self.waiting.append(name)
        if name in ("to", "cpu", "cuda", "type_as") and found.device != arguments[0].device and not named.get("non_blocking"):
            self.waiting.append(name)
        if name in ("__getitem__", "__setitem__") and arguments[0].device == META:
            parts = arguments[1] if isinstance(arguments[1], tuple) else (arguments[1],)
            elsewhere = (isinstance(part, torch.Tensor) and part.device != META for part in parts)
            self.waiting += [name] if any(elsewhere) or any(isinstance(part, list) for part in parts) else []
        if name == "copy_" and arguments[0].device != arguments[1].device:
            self.waiting.append(name)
        return found


def waits(name_or_kind):
    """What an augmentation waits for."""
    kind = plugin_class(name_or_kind) if isinstance(name_or_kind, str) else name_or_kind
    module, _ = built(kind, SHAPES, SAMPLES, CLASSES)
    labels = torch.empty(SAMPLES, dtype=torch.long, device=META)
    batch = Batch(torch.empty(SAMPLES, *module.setting.shape, device=META), {"": labels}, {"": labels}, samples=labels)
    # no generator draws on this device, but what is drawn on the CPU is real
    own = module.draws.generator
    module.draws.generator = lambda owner, device, same_on_ranks=False: own(owner, torch.device("cpu"), same_on_ranks)
    with Calls() as calls:
        out = module.plugins[0].transform_batch(batch, module)
    assert out.x.device == META and len(out) == SAMPLES
    return calls.waiting


@pytest.mark.parametrize("name", NAMES)
def test_no_augmentation_waits_for_the_device(name):
    assert waits(name) == []


def by_item(x):
    return x + x.mean().item()


def by_truth(x):
    return x + 1 if x.sum() > 0 else x


def by_mask(x):
    return x + x[x > 0].sum()


def by_nonzero(x):
    return x + (x > 0).nonzero().sum()


def by_a_list(x):
    return x + torch.tensor([1.0, 2.0], device=x.device).sum()


def by_a_copy(x):
    return x + torch.rand(3).to(x.device).sum()


def by_an_index(x):
    return x[[0] * len(x)] + x[torch.zeros(len(x), dtype=torch.long)]


@pytest.mark.parametrize("change", [by_item, by_truth, by_mask, by_nonzero, by_a_list, by_a_copy, by_an_index])
def test_what_waits_is_seen(change):
    from plugins.augmentation._images import ImageAugmentation
    from plugins.base import Stage

    class Waits(ImageAugmentation):
        stage, group, option = Stage.NOISE, "augmentation", "waits"

        def transform(self, x, generator):
            return change(x)

    try:
        found = waits(Waits)
    except (RuntimeError, NotImplementedError):
        return
    assert found
