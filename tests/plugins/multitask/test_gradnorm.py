import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from plugins.base import derive_seed
from plugins.multitask._heads import split_head
from plugins.multitask.gradnorm import GradNorm, gradnorm_weights
from tests.plugins.multitask.three_tasks import SETTING, STEP, TASKS, assert_one_task_is_plain, characters, fit, net


def descended(weights, norms, ratios, alpha, lr):
    """A step on the loss of the paper, by autograd, with targets held fast."""
    logarithms = weights.log().requires_grad_()
    size = logarithms.exp() * norms
    mean = size.detach().mean()
    loss = (size - mean * (ratios / ratios.mean()) ** alpha).abs().sum() / mean
    (slope,) = torch.autograd.grad(loss, logarithms)
    changed = (logarithms.detach() - lr * slope).exp()
    return changed * len(weights) / changed.sum()


@pytest.mark.parametrize("tasks", [2, 5])
def test_a_step_is_one_of_gradient_descent(tasks):
    weights, norms, ratios = torch.rand(3, tasks).double() + 0.1
    weights = weights / weights.sum() * tasks
    torch.testing.assert_close(gradnorm_weights(weights, norms, ratios, 1.5, 0.1), descended(weights, norms, ratios, 1.5, 0.1))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_two_tasks_come_to_rest_in_closed_form(alpha, size):
    """w₁ ‖g₁‖ / w₂ ‖g₂‖ = (r₁ / r₂)^α, w₁ + w₂ = 2, however far apart the gradients are; with any other α both targets cannot be met."""
    norms, ratios, weights = torch.tensor([100.0, 1.0]) * size, torch.rand(2) + 0.5, torch.ones(2)
    for lr in [0.1] * 100 + [0.01] * 100 + [0.001] * 100:
        weights = gradnorm_weights(weights, norms, ratios, alpha, lr)
    length = weights * norms
    assert (length[0] / length[1]).item() == pytest.approx((ratios[0] / ratios[1]).item() ** alpha, rel=0.01)
    assert weights.sum().item() == pytest.approx(2) and (weights > 0).all()


def test_after_an_overflow_weights_stay():
    weights = torch.tensor([0.5, 1.5])
    for norms in ([torch.inf, 1.0], [torch.nan, 1.0], [0.0, 0.0]):
        assert torch.equal(gradnorm_weights(weights, torch.tensor(norms), torch.ones(2), 1.5, 0.1), weights)


def test_a_step_without_a_label_of_a_task_leaves_its_weight():
    """The others learn as if they were alone, and progress is measured from a loss that there was."""
    weights, norms, ratios = torch.rand(3, 3).double() + 0.1
    weights = weights / weights.sum() * 3
    norms[1] = ratios[1] = 0
    found, rest = gradnorm_weights(weights, norms, ratios, 1.5, 0.1), [0, 2]
    alone = descended(weights[rest], norms[rest], ratios[rest], 1.5, 0.1)
    assert found[1] == weights[1]
    torch.testing.assert_close(found[rest], alone * weights[rest].sum() / 2)


@pytest.mark.parametrize("bad", [0.0, torch.inf, torch.nan])
def test_progress_is_measured_from_the_first_finite_loss(bad):
    plugin, first, later, norms = GradNorm(alpha=1.0, lr=0.1), torch.tensor([2.0, 3.0]), torch.tensor([1.0, 3.0]), torch.rand(2)
    plugin.prepare(SimpleNamespace(tasks=TASKS[:2]))
    for losses in (torch.tensor([bad, 3.0]), first, later):
        plugin._norms = norms * (losses != 0) if losses.isfinite().all() else torch.full((2,), torch.nan)
        plugin.after_step(SimpleNamespace(step_losses=lambda losses=losses: losses), None)
    expected = gradnorm_weights(torch.ones(2), norms, torch.ones(2), 1.0, 0.1)
    expected = gradnorm_weights(expected, norms, later / first, 1.0, 0.1)
    torch.testing.assert_close(plugin.state_dict()["weights"], expected)
    assert torch.equal(plugin.state_dict()["first"], first)


def test_trains_as_written_out():
    split, model = characters(torch.seed() % 2**32), net()
    module = fit(model, split, GradNorm(alpha=1.0, lr=0.5), parts=2)
    by_hand = split_head(copy.deepcopy(model), SETTING)
    trunk, heads = list(by_hand[1].parameters()), [list(head.parameters()) for head in by_hand[3].heads]
    weights, first, seen = torch.ones(3), None, []
    for step in range(3):
        index = torch.randperm(96, generator=torch.Generator().manual_seed(derive_seed(0, "order", 0)))[step * STEP :][:STEP]
        outputs = by_hand(split.x[index] / 255)
        losses = [nn.functional.cross_entropy(outputs[task.name], split.targets[task.name][index]) for task in TASKS]
        of_heads = [torch.autograd.grad(x, head, retain_graph=True) for x, head in zip(losses, heads, strict=True)]
        of_trunk = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in losses]
        gradients = torch.stack([torch.cat([g.flatten() for g in found]) for found in of_trunk])
        seen.append(weights[0].item())
        with torch.no_grad():
            pieces = (weights @ gradients).split([parameter.numel() for parameter in trunk])
            for parameter, piece in zip(trunk, pieces, strict=True):
                parameter -= 0.5 * piece.view_as(parameter)
            for parameter, gradient in zip(itertools.chain(*heads), itertools.chain(*of_heads), strict=True):
                parameter -= 0.5 * gradient
        now = torch.stack(losses).detach()
        first = now if first is None else first
        weights = descended(weights, gradients.norm(dim=1), now / first, 1.0, 0.5)
    for trained, expected in zip(module.model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-3, atol=1e-5)
    assert module.log.series("gradnorm/weight_alphabet") == pytest.approx(seen, rel=1e-3) and len(set(seen)) == 3


def test_one_task_equals_the_plain_run_bit_for_bit():
    assert_one_task_is_plain(GradNorm)
