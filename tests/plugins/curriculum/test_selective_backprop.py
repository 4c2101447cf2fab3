import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional

from plugins.base import Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task, derive_seed
from plugins.curriculum.selective_backprop import SelectiveBackprop, chances, choose
from tests.plugins.curriculum import numbered
from tests.plugins.curriculum.numbered import Seen, net, sgd, trained


def published(samples, keep):
    """The chances of Composer's pseudo-code, of sorted losses."""
    percentiles = np.arange(0.5, samples, 1) / samples
    found = percentiles ** ((1.0 / keep) - 1.0)
    return found / np.sum(found)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.8, 1.0])
def test_the_chances_are_the_published_ones(keep):
    found = chances(13, keep)
    np.testing.assert_allclose((found / found.sum()).numpy(), published(13, keep), rtol=1e-12)


def test_samples_are_drawn_as_numpy_draws_them():
    losses, keep, draws = torch.rand(8), 0.5, 1500
    generator, random = torch.Generator().manual_seed(int(torch.randint(2**40, ()))), np.random.default_rng(0)
    ours, theirs = torch.zeros(8), torch.zeros(8)
    for _ in range(draws):
        chosen = choose(losses, keep, generator)
        assert len(chosen) == 4 and chosen.tolist() == sorted(set(chosen.tolist()))
        ours[chosen] += 1 / draws
        theirs[losses.argsort()[random.choice(8, 4, replace=False, p=published(8, keep))]] += 1 / draws
    assert (ours - theirs).abs().max() < 5 * (0.5 / draws) ** 0.5
    assert ours[losses.argmax()] > 0.6 > 0.2 > ours[losses.argmin()]


def test_as_many_are_chosen_as_the_exact_share_asks_for():
    for hundredths in range(1, 101):
        chosen = choose(torch.rand(100), hundredths / 100, torch.Generator())
        assert len(chosen) == math.floor(Fraction(hundredths, 100) * 100)


def test_one_sample_at_least():
    assert len(choose(torch.rand(5), 0.01, torch.Generator())) == 1


def test_a_step_learns_from_the_chosen_as_by_hand(problem):
    x, y = problem.batches[0]
    model = problem.copy().train()
    with torch.no_grad():
        losses = functional.cross_entropy(copy.deepcopy(model)(x), y, reduction="none")
    chosen = choose(losses, 0.4, torch.Generator().manual_seed(derive_seed(0, "selective_backprop", 0, 0)))
    assert len(chosen) == 3
    loss = functional.cross_entropy(model(x[chosen]), y[chosen])  # running statistics are measured of these alone
    loss.backward()
    module = problem.fit(SelectiveBackprop(0.4), steps=1, optimizer=lambda groups: torch.optim.SGD(groups, 0.1))
    for ours, theirs in zip(module.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)
    for ours, theirs in zip(module.model.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert problem.log.series("selective_backprop/loss") == [pytest.approx(losses.mean().item())]
    assert problem.log.series("selective_backprop/chosen_loss") == [pytest.approx(losses[chosen].mean().item())]


@pytest.mark.parametrize("parts", [1, 2])
def test_each_part_has_its_own_ranks_and_the_step_divides_once(tmp_path, parts):
    seen, (x, y, weight) = Seen(), numbered.problem()
    module = trained(tmp_path, 5, SelectiveBackprop(0.5, interrupt=3), seen, parts=parts, weighted=True)
    sizes = [len(numbers) for numbers, _ in seen.passes]
    assert sizes == [size // parts for size in (4, 4, 8, 4, 4) for _ in range(parts)]
    model = net()
    optimizer = sgd(model.parameters())
    for step in range(5):
        taken = torch.cat([numbers for numbers, _ in seen.passes[step * parts : (step + 1) * parts]])
        assert torch.equal(torch.cat([inputs for _, inputs in seen.passes[step * parts : (step + 1) * parts]]), x[taken])
        values = functional.cross_entropy(model(x[taken]), y[taken], reduction="none")
        optimizer.zero_grad()
        ((weight[taken] * values).sum() / weight[taken].sum()).backward()
        optimizer.step()
    torch.testing.assert_close(module.model.weight, model.weight, rtol=1e-4, atol=1e-6)


class Replaying(Plugin):
    """Trains on each batch twice."""

    stage, group, option, repeats = Stage.ADVERSARIAL, "adversarial", "replaying", 2


def test_refuses_replays_and_what_is_out_of_range():
    with pytest.raises(
        Refusal, match="adversarial/replaying trains several steps in a row on the same ones: leave one of the two out"
    ):
        SelectiveBackprop().check(
            Selection([SelectiveBackprop(), Replaying()], Setting((4,), (Task("", "classification", 3),)))
        )
    with pytest.raises(RecipeError, match=r"^keep must be a number in \(0, 1\]"):
        SelectiveBackprop(0.0)
