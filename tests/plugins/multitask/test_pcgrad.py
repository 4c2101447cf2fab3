import copy
import itertools

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, derive_seed
from plugins.clipping.norm import ClipNorm
from plugins.multitask._aggregated import cosines, inner_products
from plugins.multitask._heads import split_head
from plugins.multitask.pcgrad import PCGrad, pcgrad_weights
from recipes.engine.module import RecipeModule
from tests.plugins.multitask.three_tasks import SETTING, STEP, TASKS, characters, fit, net


def projected(gradients, orders):
    """The algorithm of the paper, written out on the gradients."""
    total = torch.zeros_like(gradients[0])
    for own, order in enumerate(orders):
        g = gradients[own].clone()
        for other in order:
            if other != own and g @ gradients[other] < 0:
                g -= (g @ gradients[other]) / (gradients[other] @ gradients[other]) * gradients[other]
        total += g
    return total


def test_the_example_of_the_literature():
    gradients = torch.tensor([[-4.0, 1, 1], [6, 1, 1]])
    weights = pcgrad_weights(inner_products(gradients), [[1], [0]])
    torch.testing.assert_close(weights @ gradients, torch.tensor([0.5848, 3.8012, 3.8012]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("tasks", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_equals_the_algorithm_in_any_order(tasks, size):
    gradients = torch.randn(tasks, 9, dtype=torch.float64)
    orders = [torch.randperm(tasks).tolist() for _ in range(tasks)]
    weights = pcgrad_weights(inner_products((gradients * size).float()), orders)
    torch.testing.assert_close(weights.double() @ gradients, projected(gradients, orders), rtol=1e-3, atol=1e-4)


def test_a_task_without_a_gradient_changes_nothing():
    gradients = torch.randn(3, 5)
    gradients[1] = 0
    weights = pcgrad_weights(inner_products(gradients), [[1, 2], [0, 2], [0, 1]])
    assert weights.isfinite().all()
    torch.testing.assert_close(weights @ gradients, projected(gradients[[0, 2]], [[1], [0]]))
    assert cosines(inner_products(gradients)).isfinite().all()


def test_cosines_of_all_pairs():
    gradients = torch.randn(4, 7)
    pairs = itertools.combinations(gradients, 2)
    expected = torch.stack([torch.cosine_similarity(one, other, dim=0) for one, other in pairs])
    torch.testing.assert_close(cosines(inner_products(gradients)), expected)


def test_trains_as_written_out():
    """Three tasks, of which each order of projection gives another result: gradients by hand, heads by their own task."""
    split, model = characters(torch.seed() % 2**32), net()
    module = fit(model, split, PCGrad(), lr=1.0)
    by_hand = split_head(copy.deepcopy(model), SETTING)
    trunk, heads = list(by_hand[1].parameters()), [list(head.parameters()) for head in by_hand[3].heads]
    conflicts = []
    for step in range(3):
        generator = torch.Generator().manual_seed(derive_seed(0, "pcgrad", step))
        orders = [torch.randperm(3, generator=generator).tolist() for _ in range(3)]
        index = torch.randperm(96, generator=torch.Generator().manual_seed(derive_seed(0, "order", 0)))[step * STEP :][:STEP]
        outputs = by_hand(split.x[index] / 255)
        losses = [nn.functional.cross_entropy(outputs[task.name], split.targets[task.name][index]) for task in TASKS]
        of_heads = [torch.autograd.grad(x, head, retain_graph=True) for x, head in zip(losses, heads, strict=True)]
        of_trunk = [torch.autograd.grad(loss, trunk, retain_graph=True) for loss in losses]
        gradients = torch.stack([torch.cat([g.flatten() for g in found]) for found in of_trunk])
        conflicts.append(sum(float(a @ b < 0) for a, b in itertools.combinations(gradients, 2)) / 3)
        pieces = projected(gradients, orders).split([parameter.numel() for parameter in trunk])
        with torch.no_grad():
            for parameter, piece in zip(trunk, pieces, strict=True):
                parameter -= piece.view_as(parameter)
            for parameter, gradient in zip(itertools.chain(*heads), itertools.chain(*of_heads), strict=True):
                parameter -= gradient
    for trained, expected in zip(module.model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-3, atol=1e-5)
    assert module.log.series("pcgrad/conflicts") == pytest.approx(conflicts)
    assert {"pcgrad/alphabet_loss", "pcgrad/cosine"} <= {name for row in module.log.rows for name in row}


def test_both_passes_of_a_step_project_in_the_same_order():
    orders = []

    class Watched(PCGrad):
        option = "pcgrad"

        def weights(self, products, module):
            orders.append(module.generator(self.option, "cpu", same_on_ranks=True).initial_seed())
            return super().weights(products, module)

    from plugins.wrapper.sam import SAM

    fit(net(), characters(0), Watched(), SAM(0.05), parts=2)
    assert len(orders) == 6 and orders[::2] == orders[1::2] and len(set(orders)) == 3


def test_is_clipped_like_any_gradient():
    module = fit(net(), characters(0), PCGrad(), ClipNorm(0.01))
    assert module.log.series("norm/after") == pytest.approx([0.01] * 3)


@pytest.mark.parametrize("name", ["alphabet", "drawer"])
def test_one_task_equals_the_plain_run_bit_for_bit(name):
    task = next(task for task in TASKS if task.name == name)
    split = characters(0)
    split.targets = {name: split.targets[name]}
    plain, one = (fit(net(task.outputs), split, *plugins, tasks=[task], parts=2) for plugins in ((), (PCGrad(),)))
    first, second = plain.model.state_dict(), one.model.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_parts_of_weights_are_refused():
    module = RecipeModule(net(), nn.functional.cross_entropy, torch.optim.SGD)
    with pytest.raises(RecipeError, match="multitask/pcgrad needs whole weights or gradients.*type trainer=ddp"):
        module.build([PCGrad()], SETTING, sharded=True, devices=2)
