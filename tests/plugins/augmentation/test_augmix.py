import math
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import entropy
from torchvision.transforms.v2 import AugMix as Torchvisions

from plugins.augmentation._operations import OPERATIONS
from plugins.augmentation.augmix import AugMix, divergence
from plugins.augmentation.mixup import Mixup
from plugins.base import Refusal, Selection, Setting, Task, check_selection
from tests.plugins.augmentation.torchvisions import NAMES, expect_within_a_grey_level, images, magnitude, operation


@pytest.mark.parametrize(("depth", "severity", "every"), [(None, 3, False), (2, 10, True)])
def test_views_are_chains_of_torchvisions_operations_mixed(build, batch, depth, severity, every):
    plugin, given, samples, width = AugMix(2, depth, severity, every, jsd=False), batch(48), 48, 2
    given.x, module = images(samples), build(plugin, seed=int(torch.randint(2**31, ())))
    before, out = given.x.clone(), plugin.transform_batch(given, module).x
    space = Torchvisions._AUGMENTATION_SPACE if every else Torchvisions._PARTIAL_AUGMENTATION_SPACE
    known = {NAMES[OPERATIONS[number]] for number in plugin._numbers.tolist()}
    assert known == set(space) and len(plugin._numbers) == len(space)
    generator, chains = module.generator("augmix", "cpu"), [list(before) for _ in range(width)]
    depths = torch.randint(1, 4, (width * samples,), generator=generator).view(width, samples)
    for place in range(depth or 3):
        numbers, levels, coins = (
            torch.randint(n, (width * samples,), generator=generator).view(width, samples).tolist()
            for n in (len(space), severity, 2)
        )
        for chain in range(width):
            for i in range(samples):
                if depth or place < depths[chain, i]:
                    name = OPERATIONS[plugin._numbers[numbers[chain][i]]]
                    by, signed = magnitude(Torchvisions, name, levels[chain][i], 10, 8, 10)
                    by *= 1 - 2 * coins[chain][i] if signed else 1
                    chains[chain][i] = operation(chains[chain][i], name, by, "bilinear")
    weights = -torch.rand(width, samples, generator=generator).log()
    weights, kept = weights / weights.sum(0), torch.rand(samples, generator=generator)
    mixed = sum(weight.view(-1, 1, 1, 1) * torch.stack(chain) for weight, chain in zip(weights, chains, strict=True))
    kept = kept.view(-1, 1, 1, 1)
    # equalize and posterize make a step of what bilinear rounding leaves on either side of it
    expect_within_a_grey_level(out, kept * before + (1 - kept) * mixed, of_edges=0.03)
    assert torch.equal(given.x, before) and len(kept.unique()) == samples


def test_the_divergence_is_that_of_scipys_entropies():
    logits = 3 * torch.randn(3, 20, 6)
    p = logits.softmax(2).double().numpy()
    expected = entropy(p.mean(0), axis=1) - entropy(p, axis=2).mean(0)
    assert divergence(logits).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert divergence(logits[:1].expand(3, -1, -1)).tolist() == pytest.approx([0] * 20, abs=1e-6)
    sure = torch.tensor([[[0.0, 300.0]], [[300.0, 0.0]]], requires_grad=True)
    found = divergence(sure).mean()
    found.backward()
    assert found.item() == pytest.approx(math.log(2)) and sure.grad.isfinite().all()


def test_with_jsd_images_stay_and_two_views_are_compared_with_them(build, batch):
    plugin, given, tasks = AugMix(weight=5.0), batch(30), [Task("", "classification", 4)]
    module, model = build(plugin, tasks=tasks), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(240, 4))
    module.model = model
    changed = plugin.transform_batch(given, module)
    assert changed.x is given.x and changed.targets is given.targets
    views = changed.extra["augmentation/augmix"]
    assert views.shape == (60, 3, 8, 10) and not torch.equal(views[:30], views[30:])
    p = [model(x).softmax(1).detach().double().numpy() for x in (given.x, views[:30], views[30:])]
    apart = entropy(sum(p) / 3, axis=1) - sum(entropy(each, axis=1) for each in p) / 3
    assert float(plugin.penalty(module, changed, module.outputs(given.x)).detach()) == pytest.approx(5 * apart.mean(), rel=1e-3)
    changed.correction, changed.weight = torch.rand(30) * 2, {"": (torch.rand(30) > 0.3).float()}
    expected = (
        5 * (apart * (changed.correction * changed.weight[""]).double().numpy()).mean()
    )  # 0 where the loss ignores a label
    assert float(plugin.penalty(module, changed, module.outputs(given.x)).detach()) == pytest.approx(expected, rel=1e-3)


def test_views_are_of_what_mixing_has_made(build, batch):
    module, given = build(AugMix(severity=1, depth=1), Mixup(1.0)), batch(16)
    for plugin in module.plugins:
        given = plugin.transform_batch(given, module)
    assert [plugin.option for plugin in module.plugins] == ["mixup", "augmix"]
    twice = SimpleNamespace(generator=module.generator, option="augmix")
    again = module.plugins[1].transform_batch(given, twice)
    assert torch.equal(again.extra["augmentation/augmix"], given.extra["augmentation/augmix"])


def test_is_off_with_a_weight_of_zero_unless_it_takes_the_place_of_the_images():
    assert AugMix(weight=0.0).is_off and not AugMix(weight=0.0, jsd=False).is_off and not AugMix().is_off
    assert AugMix().needs_logits and not AugMix(jsd=False).needs_logits


def test_refuses_to_compare_probabilities_of_numbers():
    numbers = Setting((1, 8, 8), (Task("", "regression", 1),), 0, lambda: iter([torch.rand(9, 1, 8, 8)]))
    with pytest.raises(Refusal, match="type augmentation.augmix.jsd=false, or leave it out"):
        check_selection(Selection([AugMix()], numbers))
    check_selection(Selection([AugMix(jsd=False)], numbers))
