import pytest
import torch
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation._geometry import flip
from plugins.augmentation.horizontal_flip import HorizontalFlip


@pytest.mark.parametrize("dim", [-1, -2])
def test_equals_torch_flip(dim):
    x, mirrored = torch.rand(40, 3, 8, 10), torch.rand(40) < 0.5
    out = flip(x, mirrored, dim)
    for image, result, turned in zip(x, out, mirrored, strict=True):
        assert torch.equal(result, image.flip(dim) if turned else image)


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given = HorizontalFlip(p=0.5), batch(256)
    out = plugin.transform_batch(given, build(plugin)).x
    mirrored = torch.rand(256, generator=drawn("horizontal_flip")) < 0.5
    for image, result, turned in zip(given.x, out, mirrored.tolist(), strict=True):
        assert torch.equal(result, torchvisions.horizontal_flip(image) if turned else image)


def test_each_image_has_a_draw_of_its_own(build, batch):
    plugin, given = HorizontalFlip(p=0.3), batch(4000)
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin)).x
    mirrored = (out == given.x.flip(-1)).flatten(1).all(1)
    kept = (out == given.x).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.sum() - 1200) < 6 * (4000 * 0.3 * 0.7) ** 0.5
    assert torch.equal(given.x, before)


def test_one_flips_all(build, batch):
    given, always = batch(), HorizontalFlip(p=1.0)
    assert torch.equal(always.transform_batch(given, build(always)).x, given.x.flip(-1))
