import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation.zoom import Zoom
from plugins.base import RecipeError

SHAPE = (3, 9, 12)
LEVEL = 1 / 255


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given = Zoom(low=0.5, high=2.0), batch(256, SHAPE)
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    factors = 0.5 + 1.5 * torch.rand(256, generator=drawn("zoom"))
    assert len(factors.unique()) > 250  # of 24 bits: two may be equal
    for image, result, factor in zip(before, out, factors.tolist(), strict=True):
        expected = torchvisions.affine(image, 0.0, [0, 0], factor, [0.0, 0.0], InterpolationMode.BILINEAR)
        assert (result - expected).abs().max() < LEVEL
    assert torch.equal(given.x, before)


def test_only_what_shrinks_is_filled(build, batch):
    assert Zoom(0.9, 1.1).fills() and not Zoom(1.0, 2.0).fills()
    given, plugin = batch(), Zoom(1.0, 3.0, fill=-100.0)
    assert (plugin.transform_batch(given, build(plugin)).x >= -1e-4).all()


def test_refuses_ends_in_the_wrong_order():
    with pytest.raises(RecipeError, match=r"low must be at most high, 0\.5, got 0\.8"):
        Zoom(high=0.5)
