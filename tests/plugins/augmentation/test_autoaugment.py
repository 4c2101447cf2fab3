import pytest
import torch
from torchvision.transforms.v2 import AutoAugment as Torchvisions
from torchvision.transforms.v2 import AutoAugmentPolicy

from plugins.augmentation._colours import equalize
from plugins.augmentation._operations import OPERATIONS
from plugins.augmentation.autoaugment import POLICIES, AutoAugment, policy_of
from tests.plugins.augmentation.torchvisions import NAMES, expect_within_a_grey_level, images, magnitude, operation


@pytest.mark.parametrize("policy", POLICIES)
def test_pairs_are_torchvisions(policy):
    theirs = Torchvisions()._get_policies(AutoAugmentPolicy(policy))
    ours = [
        tuple(
            (NAMES[OPERATIONS[number]], chance, level)
            for number, chance, level in zip(*(found.tolist() for found in of_pair), strict=True)
        )
        for of_pair in zip(*policy_of(policy), strict=True)
    ]
    assert len(ours) == 25
    for own, given in zip(ours, theirs, strict=True):
        for (name, chance, level), (other, probability, place) in zip(own, given, strict=True):
            assert (name, level) == (other, place or 0) and chance == pytest.approx(probability)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_of_256_draws_is_torchvisions_one_image_at_a_time(build, batch, policy):
    plugin, given = AutoAugment(policy), batch(256)
    given.x, module = images(256), build(plugin, seed=int(torch.randint(2**31, ())))
    before, out = given.x.clone(), plugin.transform_batch(given, module).x
    generator, (numbers, chances, levels) = module.generator("autoaugment", "cpu"), policy_of(policy)
    pair, expected, kinds = torch.randint(25, (256,), generator=generator), list(before), [[] for _ in before]
    for place in range(2):
        done = torch.rand(256, generator=generator) < chances[pair, place]
        signs = 1 - 2 * torch.randint(2, (256,), generator=generator)
        for i in done.nonzero()[:, 0].tolist():
            name, level = OPERATIONS[numbers[pair[i], place]], int(levels[pair[i], place])
            by, signed = magnitude(Torchvisions, name, level, 10, 8, 10)
            expected[i] = operation(expected[i], name, by * (int(signs[i]) if signed else 1))
            kinds[i].append((name, by, int(signs[i])))
    expect_within_a_grey_level(out, torch.stack(expected))
    assert torch.equal(given.x, before) and len({tuple(kind) for kind in kinds}) > 40


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_images_of_16_bits_are_equalized(kind):
    x = torch.rand(4, 3, 8, 8).to(kind)
    x[:, :, 0, 0] = 1.0
    out = equalize(x)
    assert out.dtype == kind
    torch.testing.assert_close(out.float(), equalize(x.float()), atol=5e-3, rtol=0)
