import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation.elastic import Elastic, displacements

SHAPE = (2, 14, 11)
LEVEL = 1 / 255


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_displacements_are_smoothed_noise(sigma):
    noise = 2 * torch.rand(5, 2, 14, 11) - 1
    expected = torch.stack(
        [torch.from_numpy(gaussian_filter(one.numpy(), sigma, mode="constant")) for one in noise.flatten(0, 1)]
    )
    torch.testing.assert_close(displacements(noise, 7.5, sigma), 7.5 * expected.view_as(noise), rtol=1e-4, atol=1e-5)


def test_equals_torchvision_image_by_image(build, batch, drawn):
    plugin, given = Elastic(alpha=20, sigma=2), batch(256, SHAPE)
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    noise = 2 * torch.rand(256, 2, *SHAPE[1:], generator=drawn("elastic")) - 1
    moved = displacements(noise, 20, 2)
    assert len(moved.flatten(1).unique(dim=0)) == 256
    to_unit = torch.tensor([2 / SHAPE[2], 2 / SHAPE[1]])  # torchvision counts from −1 to 1
    for image, result, field in zip(before, out, moved, strict=True):
        expected = torchvisions.elastic(image, field.permute(1, 2, 0)[None] * to_unit, InterpolationMode.BILINEAR)
        assert (result - expected).abs().max() < LEVEL
    assert torch.equal(given.x, before)


def test_autocast_does_not_round_where_pixels_come_from(build, batch):
    plugin, given = Elastic(), batch(8, SHAPE)
    expected = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plugin.transform_batch(given, build(plugin, shape=SHAPE)).x, expected)
