import torch
from torchvision.transforms.v2 import TrivialAugmentWide

from plugins.augmentation._operations import OPERATIONS, operate
from plugins.augmentation.trivial_augment import TrivialAugment
from tests.plugins.augmentation.torchvisions import expect_within_a_grey_level, images, magnitude, operation


def test_a_batch_of_256_draws_is_torchvisions_one_image_at_a_time(build, batch):
    plugin, given = TrivialAugment(), batch(256, (3, 40, 36))
    given.x, module = images(256, 3, 40, 36), build(plugin, shape=(3, 40, 36), seed=int(torch.randint(2**31, ())))
    out, generator = plugin.transform_batch(given, module).x, module.generator("trivial_augment", "cpu")
    operations, levels, coins = (torch.randint(n, (256,), generator=generator) for n in (14, 31, 2))
    expected, drawn = [], set()
    for image, number, level, coin in zip(given.x, operations.tolist(), levels.tolist(), coins.tolist(), strict=True):
        by, signed = magnitude(TrivialAugmentWide, OPERATIONS[number], level, 31, 40, 36)
        by *= 1 - 2 * coin if signed else 1
        expected.append(operation(image, OPERATIONS[number], by))
        drawn.add((number, by))
    expect_within_a_grey_level(out, torch.stack(expected))
    assert len(drawn) > 120


def test_autocast_changes_no_number():
    x, operations = images(60), torch.arange(60) % len(OPERATIONS)
    amounts = torch.rand(60) * 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = operate(x, operations, amounts)
    assert torch.equal(rounded, operate(x, operations, amounts)) and rounded.dtype == torch.float32
