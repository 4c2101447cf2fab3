from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.base import Batch, RecipeError, Refusal, Selection, Setting, Task, derive_seed
from plugins.inputs import Entry
from plugins.passes import differentiable_twice
from plugins.regularizer.jacobian import JacobianPenalty, projected_norm, unit_vectors
from recipes.models.rnn import RecurrentModel
from recipes.models.transformer import TransformerModel


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def exact(model, x):
    """‖∂z/∂x‖² of each sample, the mean, by torch's own Jacobian."""
    return torch.stack([torch.autograd.functional.jacobian(model, one.unsqueeze(0)).square().sum() for one in x]).mean()


def test_over_a_basis_it_is_the_squared_norm_of_the_jacobian():
    model, x = net(), torch.randn(5, 2, 3, requires_grad=True)
    basis = torch.eye(3)
    found = torch.stack([projected_norm(model(x), [x], v.expand(5, 3)) for v in basis]).mean()
    torch.testing.assert_close(found, exact(model, x.detach()))


def test_random_directions_have_it_as_mean():
    model, one = net(), torch.randn(1, 2, 3)
    x = one.expand(16_000, 2, 3).clone().requires_grad_()
    directions = unit_vectors((16_000, 3), torch.Generator())
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(16_000))
    found = projected_norm(model(x), [x], directions)
    torch.testing.assert_close(found, exact(model, one), rtol=0.06, atol=0)


def test_trains_as_the_loop_by_hand(problem):
    x, y = problem.batches[0]
    model = problem.copy().train()
    generator = torch.Generator().manual_seed(derive_seed(0, "jacobian", 0, 0))
    x = x.clone().requires_grad_()
    z = model(x)
    v = torch.randn(len(x), 3, generator=generator)
    v = v / v.norm(dim=1, keepdim=True)
    (slope,) = torch.autograd.grad((v * z).sum(), x, create_graph=True)
    penalty = 3 * slope.square().sum(1).mean()
    (functional.cross_entropy(z, y) + 0.3 * penalty).backward()
    found = problem.fit(JacobianPenalty(0.3), steps=1, optimizer=lambda groups: torch.optim.SGD(groups, 0.1)).model
    for ours, theirs in zip(found.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)
    assert problem.log.series("jacobian/squared_norm") == [pytest.approx(penalty.item(), rel=1e-5)]


SHAPE = {"steps": Entry((5, 3), "float32"), "mask": Entry((5,), "bool")}


@pytest.mark.parametrize(
    "make",
    [
        lambda: TransformerModel(SHAPE, 3, width=8, heads=2, layers=1, hidden=8),
        lambda: RecurrentModel(SHAPE, 3),
        lambda: Attention(),
    ],
)
def test_attention_and_recurrent_layers_have_second_derivatives(make):
    model = make()
    steps = torch.randn(4, 5, 3, requires_grad=True)
    with differentiable_twice(any(isinstance(part, nn.RNNBase) for part in model.modules())):
        z = model({"steps": steps, "mask": torch.ones(4, 5, dtype=torch.bool)})
        projected_norm(z, [steps], unit_vectors(z.shape, torch.Generator())).backward()
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, inputs):
        x = inputs["steps"]
        return self.attention(x, x, x, need_weights=False)[0].mean(1)


def test_inputs_that_are_no_numbers_stay_as_they_are():
    plugin, mask = JacobianPenalty(), torch.ones(4, 5, dtype=torch.bool)
    batch = Batch({"steps": torch.randn(4, 5, 3), "mask": mask}, {}, {})
    found = plugin.transform_batch(batch, None)
    assert found.x["steps"].requires_grad and found.x["mask"] is mask and not batch.x["steps"].requires_grad


def test_refuses():
    tasks = (Task("", "classification", 3),)
    for setting in (
        Setting((7,), tasks, tokens=True),
        Setting({"tokens": Entry((7,), "int64"), "mask": Entry((7,), "bool")}, tasks),
    ):
        with pytest.raises(Refusal, match="regularizer/jacobian differentiates by inputs that are numbers"):
            JacobianPenalty().check(Selection([], setting))
    with pytest.raises(Refusal, match="trainer.compile=false"):
        JacobianPenalty().check(Selection([], Setting((6,), tasks), compiled=True))
    with pytest.raises(RecipeError, match="which a compiled model cannot"):
        JacobianPenalty().transform_model(torch.compile(net(), backend="eager"))


def test_it_makes_up_for_how_often_a_sample_is_drawn():
    plugin, model, correction = JacobianPenalty(0.5), net(), torch.tensor([0.0, 0.5, 3.0, 1.0])
    drawn = {"generator": lambda owner: torch.Generator().manual_seed(3), "record": lambda *_: None}
    module = SimpleNamespace(device=torch.device("cpu"), **drawn)
    batch = plugin.transform_batch(Batch(torch.randn(4, 2, 3), {}, {}, correction=correction), module)
    found = plugin.penalty(module, batch, {"": model(batch.x)})
    jacobians = [torch.autograd.functional.jacobian(model, one.unsqueeze(0)).view(3, 6) for one in batch.x.detach()]
    directions = unit_vectors((4, 3), module.generator(""))
    squares = torch.stack([3 * (v @ jacobian).square().sum() for v, jacobian in zip(directions, jacobians, strict=True)])
    torch.testing.assert_close(found, 0.5 * (correction * squares).mean())
