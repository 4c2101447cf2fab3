import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation.rotate import Rotate

SHAPE = (3, 9, 12)
LEVEL = 1 / 255


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given = Rotate(degrees=180), batch(256, SHAPE)
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    angles = 360 * torch.rand(256, generator=drawn("rotate")) - 180
    assert len(angles.unique()) > 250  # of 24 bits: two may be equal
    for image, result, angle in zip(before, out, angles.tolist(), strict=True):
        expected = torchvisions.rotate(image, angle, InterpolationMode.BILINEAR)
        assert (result - expected).abs().max() < LEVEL
    assert torch.equal(given.x, before)


def test_what_comes_in_has_the_value_asked_for(build, batch, drawn):
    plugin, given = Rotate(degrees=90, fill=-3.5), batch(30, SHAPE)
    out = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    angles = 180 * torch.rand(30, generator=drawn("rotate")) - 90
    for image, result, angle in zip(given.x, out, angles.tolist(), strict=True):
        turned, there = (torchvisions.rotate(x, angle, InterpolationMode.BILINEAR) for x in (image, torch.ones_like(image)))
        expected = turned - 3.5 * (1 - there)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_half_precision_is_that_of_the_values_alone(build, batch):
    plugin, given = Rotate(degrees=90), batch(16, SHAPE)
    exact = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    given.x = given.x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    assert out.dtype == torch.bfloat16 and (out.float() - exact).abs().max() < 2**-7
