import torch
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation.vertical_flip import VerticalFlip


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given = VerticalFlip(p=0.3), batch(256)
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin)).x
    mirrored = torch.rand(256, generator=drawn("vertical_flip")) < 0.3
    assert 256 * 0.15 < mirrored.sum() < 256 * 0.45
    for image, result, turned in zip(before, out, mirrored.tolist(), strict=True):
        assert torch.equal(result, torchvisions.vertical_flip(image) if turned else image)
    assert torch.equal(given.x, before)


def test_one_flips_all(build, batch):
    given, always = batch(), VerticalFlip(p=1.0)
    assert torch.equal(always.transform_batch(given, build(always)).x, given.x.flip(-2))
