import copy
import itertools

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, derive_seed
from plugins.multitask._aggregated import inner_products
from plugins.multitask._heads import split_head
from plugins.multitask.upgrad import UPGrad, upgrad_weights
from recipes.engine.module import RecipeModule
from tests.plugins.multitask.three_tasks import SETTING, STEP, TASKS, characters, fit, net


def projected(gradient, gradients):
    """The point of {x: x·gⱼ ≥ 0} nearest to a gradient: of all sets of bounds that may hold with equality the one that is best."""
    best = None
    for count in range(len(gradients) + 1):
        for tight in itertools.combinations(range(len(gradients)), count):
            rows = gradients[list(tight)]
            x = gradient - rows.T @ (torch.linalg.pinv(rows @ rows.T) @ (rows @ gradient))
            feasible = (gradients @ x >= -1e-9 * gradients.norm(dim=1) * gradient.norm()).all()
            if feasible and (best is None or (x - gradient).norm() < (best - gradient).norm()):
                best = x
    return best


def reference(gradients):
    """The mean of the projections."""
    gradients = gradients.double()
    return torch.stack([projected(gradient, gradients) for gradient in gradients]).mean(0)


def test_the_example_of_the_literature():
    gradients = torch.tensor([[-4.0, 1, 1], [6, 1, 1]])
    found = upgrad_weights(inner_products(gradients)) @ gradients
    torch.testing.assert_close(found, torch.tensor([0.2929, 1.9004, 1.9004]), rtol=0, atol=1e-3)  # of a regularized solver
    torch.testing.assert_close(found.double(), reference(gradients), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
@pytest.mark.parametrize("scales", [(1, 1), (1e-25, 1e-25), (1e25, 1e25), (1, 1e4)])
def test_equals_the_mean_of_the_projections_and_conflicts_with_none(tasks, scales):
    gradients = torch.randn(tasks, 8)
    gradients[1:] -= 0.5 * gradients[:1]  # conflicts
    sizes = torch.logspace(*torch.tensor(scales).double().log10().tolist(), tasks)
    found = upgrad_weights(inner_products(gradients * sizes.unsqueeze(1))).double() @ (
        gradients.double() * sizes.double()[:, None]
    )
    expected = reference(gradients.double() * sizes.double().unsqueeze(1) / max(scales)) * max(scales)
    torch.testing.assert_close(found / max(scales), expected / max(scales), rtol=1e-3, atol=1e-4)
    assert (gradients.double() @ found >= -1e-4 * found.norm() * gradients.norm(dim=1)).all()


def test_gradients_that_are_opposite_leave_nothing_and_zero_ones_change_nothing():
    one = torch.randn(6)
    both = torch.stack([one, -one])
    assert (upgrad_weights(inner_products(both)) @ both).norm() < 1e-4 * one.norm()
    with_zero = torch.stack([one, torch.zeros(6)])
    torch.testing.assert_close(upgrad_weights(inner_products(with_zero)) @ with_zero, one / 2)
    assert upgrad_weights(inner_products(torch.zeros(2, 6))).isfinite().all()


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_an_overflow_stays_one(bad):
    gradients = torch.randn(2, 4)
    gradients[0, 1] = bad
    assert (upgrad_weights(inner_products(gradients)) @ gradients).isnan().all()


def test_trains_as_written_out():
    split, model = characters(torch.seed() % 2**32), net()
    module = fit(model, split, UPGrad(), lr=1.0)
    by_hand = split_head(copy.deepcopy(model), SETTING)
    trunk, heads = list(by_hand[1].parameters()), [list(head.parameters()) for head in by_hand[3].heads]
    for step in range(3):
        index = torch.randperm(96, generator=torch.Generator().manual_seed(derive_seed(0, "order", 0)))[step * STEP :][:STEP]
        outputs = by_hand(split.x[index] / 255)
        losses = [nn.functional.cross_entropy(outputs[task.name], split.targets[task.name][index]) for task in TASKS]
        of_heads = [torch.autograd.grad(x, head, retain_graph=True) for x, head in zip(losses, heads, strict=True)]
        of_trunk = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in losses]
        found = reference(torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in of_trunk])).float()
        with torch.no_grad():
            for parameter, piece in zip(trunk, found.split([parameter.numel() for parameter in trunk]), strict=True):
                parameter -= piece.view_as(parameter)
            for parameter, gradient in zip(itertools.chain(*heads), itertools.chain(*of_heads), strict=True):
                parameter -= gradient
    for trained, expected in zip(module.model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-3, atol=1e-5)
    assert {"upgrad/alphabet_loss", "upgrad/cosine", "upgrad/conflicts"} <= {name for row in module.log.rows for name in row}


def test_one_task_equals_the_plain_run_bit_for_bit():
    split = characters(0)
    split.targets = {"drawer": split.targets["drawer"]}
    plain, one = (fit(net(20), split, *plugins, tasks=TASKS[1:2]) for plugins in ((), (UPGrad(),)))
    first, second = plain.model.state_dict(), one.model.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_parts_of_weights_are_refused():
    module = RecipeModule(net(), nn.functional.cross_entropy, torch.optim.SGD)
    with pytest.raises(RecipeError, match="multitask/upgrad needs whole weights or gradients.*type trainer=ddp"):
        module.build([UPGrad()], SETTING, sharded=True, devices=2)
