import pytest
import torch
from torchvision.transforms.v2 import functional as F

from plugins.augmentation import _colours as colours
from plugins.augmentation.color_jitter import ColorJitter
from tests.plugins.augmentation.torchvisions import expect_within_a_grey_level, images

ADJUST = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def test_a_batch_of_256_draws_is_torchvisions_one_image_at_a_time(build, batch):
    strengths = (0.5, 1.5, 0.3, 0.2)
    plugin, given = ColorJitter(*strengths), batch(256)
    given.x, module = images(256), build(plugin, seed=int(torch.randint(2**31, ())))
    before, out = given.x.clone(), plugin.transform_batch(given, module).x
    generator = module.generator("color_jitter", "cpu")
    low, high = torch.tensor([0.5, 0, 0.7, -0.2]), torch.tensor([1.5, 2.5, 1.3, 0.2])
    amounts = low + (high - low) * torch.rand(256, 4, generator=generator)
    order, expected = torch.rand(256, 4, generator=generator).argsort(1), []
    for image, places, own in zip(before, order.tolist(), amounts.tolist(), strict=True):
        for place in places:
            image = ADJUST[place](image, own[place])
        expected.append(image)
    expect_within_a_grey_level(out, torch.stack(expected), of_edges=0)
    assert len(amounts.unique(dim=0)) == 256 and len(order.unique(dim=0)) == 24 and torch.equal(given.x, before)


@pytest.mark.parametrize("shift", [-0.5, -0.13, 0.0, 1e-3, 0.31, 0.5])
def test_hues_are_turned_as_torchvision_turns_them(shift):
    x = torch.cat([images(20), torch.rand(20, 3, 8, 10), (torch.rand(20, 3, 8, 10) > 0.5).float()])
    out = colours.hue(x, torch.full((60,), shift))
    torch.testing.assert_close(out, torch.stack([F.adjust_hue(image, shift) for image in x]), atol=1e-5, rtol=0)
    assert torch.equal(colours.hue(x[:, :1], torch.full((60,), shift)), x[:, :1])


def test_what_has_the_strength_zero_is_left_out(build, batch):
    given, plugin = batch(40), ColorJitter(0, 0.4, 0, 0)
    out = plugin.transform_batch(given, build(plugin)).x
    middle = colours.grey(given.x).mean((1, 2, 3), keepdim=True)
    factor = ((out - middle) / (given.x - middle)).flatten(1).median(1).values
    torch.testing.assert_close(out, colours.contrast(given.x, factor), atol=1e-4, rtol=0)
    assert len(factor.unique()) == 40
