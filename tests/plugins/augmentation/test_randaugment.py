import pytest
import torch
from torchvision.transforms.v2 import RandAugment as Torchvisions

from plugins.augmentation import _colours as colours
from plugins.augmentation.randaugment import BINS, OPERATIONS, RandAugment, apply
from plugins.base import Refusal, Selection, Setting, Task, check_selection

NAMES = dict(
    zip(
        OPERATIONS,
        [
            "Identity",
            "ShearX",
            "ShearY",
            "TranslateX",
            "TranslateY",
            "Rotate",
            "Brightness",
            "Color",
            "Contrast",
            "Sharpness",
            "Posterize",
            "Solarize",
            "AutoContrast",
            "Equalize",
        ],
        strict=True,
    )
)


def images(samples, channels, height, width):
    """Images of bytes, some of few values."""
    x = torch.randint(256, (samples, channels, height, width)) / 255
    x[::4] = (x[::4] * 3).floor() / 3
    x[1::4, :, 2:] = x[1::4, :, :1, :1]
    x[3] = 0.25
    return x


def by_torchvision(image, operation, sign, m):
    """One operation of torchvision's on one image, with the magnitude that it would take."""
    oracle, name = Torchvisions(2, m), NAMES[operation]
    magnitudes, signed = oracle._AUGMENTATION_SPACE[name]
    found = magnitudes(BINS + 1, *image.shape[-2:])
    magnitude = 0.0 if found is None else float(found[m]) * (sign if signed else 1)
    return oracle._apply_image_or_video_transform(image, name, magnitude, oracle.interpolation, oracle._fill)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("shape", [(3, 11, 14), (1, 8, 8), (3, 2, 2), (3, 64, 48)])
def test_each_operation_equals_torchvisions_one_image_at_a_time(operation, shape):
    x, before = images(6, *shape), None
    for m in (0, 1, 9, 17, 30):
        signs, before = 1.0 - 2 * torch.randint(2, (6,)), x.clone()
        out = apply(x, torch.full((6,), OPERATIONS.index(operation)), signs, m)
        assert torch.equal(x, before)
        for image, result, sign in zip(x, out, signs.tolist(), strict=True):
            difference = (result - by_torchvision(image, operation, sign, m)).abs()
            # a place between two pixels may fall to either, by the last bit
            allowed = 0.005 if operation.startswith(("shear", "rotate")) else 0
            assert (difference > 2e-5).float().mean() <= allowed, (m, sign)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_gets_its_own(channels):
    x = images(200, channels, 9, 9)
    operations, signs = torch.randint(len(OPERATIONS), (200,)), 1.0 - 2 * torch.randint(2, (200,))
    out = apply(x, operations, signs, 12)
    wrong = 0
    for image, result, operation, sign in zip(x, out, operations.tolist(), signs.tolist(), strict=True):
        wrong += not torch.allclose(result, by_torchvision(image, OPERATIONS[operation], sign, 12), atol=2e-5)
    assert wrong <= 4


def test_amounts_are_those_of_each_image():
    x, factor = images(20, 3, 8, 8), torch.rand(20) * 2
    for change in (colours.brightness, colours.saturation, colours.contrast, colours.sharpness, colours.solarize):
        alone = torch.cat([change(image[None], amount[None]) for image, amount in zip(x, factor, strict=True)])
        torch.testing.assert_close(change(x, factor), alone)
    bits = torch.randint(1, 9, (20,))
    assert torch.equal(
        colours.posterize(x, bits), torch.cat([colours.posterize(a[None], b[None]) for a, b in zip(x, bits, strict=True)])
    )


def test_draws_each_operation_and_sign_alike_and_repeats_them(build, batch):
    plugin, given = RandAugment(n=1, m=30), batch(7000, (3, 8, 10))
    given.x = torch.rand(1, 3, 8, 10).expand(7000, 3, 8, 10)
    out = plugin.transform_batch(given, build(plugin)).x
    # what is drawn: 14 operations, of which nine have two signs, and none of them equals another
    kinds, counts = out.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 5 + 2 * 9
    counts = counts.sort().values.float()
    assert (counts[:18] - 250).abs().max() < 6 * 250**0.5 and (counts[18:] - 500).abs().max() < 6 * 500**0.5
    assert torch.equal(out, plugin.transform_batch(given, build(plugin)).x)
    assert not torch.equal(out, plugin.transform_batch(given, build(plugin, seed=1)).x)


def test_operations_follow_each_other(build, batch):
    given = batch(300)
    once, twice = (RandAugment(n=n, m=15) for n in (1, 2))
    first, second = (plugin.transform_batch(given, build(plugin)) for plugin in (once, twice))
    assert first.targets is given.targets and second.x.min() >= 0 and second.x.max() <= 1
    same = [float((out.x == given.x).flatten(1).all(1).float().mean()) for out in (first, second)]
    assert 0.02 < same[0] < 0.15 and same[1] < same[0]


def setting_of(x):
    return Setting(tuple(x.shape[1:]), (Task("", "classification", 5),), 0, lambda: iter([x]))


def test_refuses_what_has_no_colours():
    for x, message in (
        (torch.rand(9, 2, 8, 8), "needs images with 1 or 3 channels, these have 2: leave it out"),
        (torch.rand(9, 3, 8, 8) * 4 - 2, r"needs images from 0 to 1, and these reach from -\d.*: scale them"),
        (torch.rand(9, 30), r"augmentation/randaugment needs images .*\(30,\)"),
    ):
        with pytest.raises(Refusal, match=message):
            check_selection(Selection([RandAugment()], setting_of(x)))
