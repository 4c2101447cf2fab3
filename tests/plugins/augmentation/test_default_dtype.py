"""Over all augmentations of conf/: what they draw does not depend on torch's default type, which trainer.precision=bf16-true changes."""

import pytest
import torch

from plugins.augmentation import _operations, autoaugment
from plugins.base import Batch
from recipes.check.choice import options, plugin_class
from tests.plugins.augmentation.built import built

NAMES = [name for name in options() if name.startswith("augmentation/")]
SHAPES = ((3, 16, 20), (12, 5), (12,))  # the first that an augmentation takes
SAMPLES, CLASSES = 64, 5


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_those_of_float32(name):
    module, x = built(plugin_class(name), SHAPES, SAMPLES, CLASSES)
    labels, found = torch.arange(SAMPLES) % CLASSES, []
    for default in (torch.float32, torch.bfloat16):
        _operations._table.cache_clear()
        autoaugment.policy_of.cache_clear()
        batch = Batch(x.clone(), {"": labels}, {"": labels}, samples=torch.arange(SAMPLES))
        try:
            torch.set_default_dtype(default)
            found.append(module.plugins[0].transform_batch(batch, module))
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(found[0].x, found[1].x) and found[0].x.dtype == found[1].x.dtype
    assert found[0].extra.keys() == found[1].extra.keys()
    for key, value in found[0].extra.items():
        assert torch.equal(value, found[1].extra[key])
