import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvisions

from plugins.augmentation.translate import Translate
from plugins.base import Refusal

SHAPE = (3, 9, 12)


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_equals_torchvision_image_by_image_to_the_bit(build, batch, drawn, fraction):
    plugin, given = Translate(fraction=fraction), batch(256, SHAPE)
    before = given.x.clone()
    out = plugin.transform_batch(given, build(plugin, shape=SHAPE)).x
    generator, reach = drawn("translate"), [round(fraction * side) for side in SHAPE[1:]]
    down, right = (torch.randint(-most, most + 1, (256,), generator=generator) for most in reach)
    for shifts, most in ((down, reach[0]), (right, reach[1])):
        assert set(shifts.tolist()) == set(range(-most, most + 1))
    for image, result, dy, dx in zip(before, out, down.tolist(), right.tolist(), strict=True):
        expected = torchvisions.affine(image, 0.0, [dx, dy], 1.0, [0.0, 0.0], InterpolationMode.NEAREST)
        assert torch.equal(result, expected)
    assert torch.equal(given.x, before)


def test_refuses_a_shift_that_never_reaches_a_pixel(build):
    with pytest.raises(
        Refusal, match=r"0\.04 of 10 is less than half of one: type augmentation.translate.fraction=0\.1 or more"
    ):
        build(Translate(fraction=0.04))
    build(Translate(fraction=0.05))
