from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import RecipeError
from plugins.diagnostics.curvature import Curvature, hessian_vector, largest_eigenvalue
from recipes.engine.module import RecipeModule
from tests.plugins.conftest import Memory


@pytest.mark.parametrize("values", [[5.0, 2.0, -1.0], [1.0, 0.5, -6.0], [-1.0, -2.0, -4.0], [3.0, 0.0, 0.0]])
def test_finds_the_largest_eigenvalue_also_where_another_is_farther_from_zero(values):
    basis, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.double))
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.double)) @ basis.T
    start = torch.randn(3, dtype=torch.double)
    found = largest_eigenvalue(lambda v: matrix @ v, start, 200)
    assert float(found) == pytest.approx(max(values), rel=1e-4)
    few = largest_eigenvalue(lambda v: matrix @ v, start, 4)
    assert float(few) <= max(values) + 1e-9  # from below


def test_of_no_curvature_it_is_zero():
    assert float(largest_eigenvalue(torch.zeros_like, torch.randn(4), 3)) == 0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def hessian(model, x, y):
    """All second derivatives of the mean cross entropy, by torch.autograd.functional.hessian."""
    names, values = zip(*((name, value.detach()) for name, value in model.named_parameters()), strict=True)

    def loss(flat):
        pieces = [piece.view_as(value) for piece, value in zip(flat.split([v.numel() for v in values]), values, strict=True)]
        return nn.functional.cross_entropy(functional_call(model, dict(zip(names, pieces, strict=True)), (x,)), y)

    return torch.autograd.functional.hessian(loss, torch.cat([value.flatten() for value in values]))


def test_the_product_is_that_of_the_whole_matrix():
    model, x, y = Net(), torch.randn(8, 4), torch.randint(3, (8,))
    parameters, vector = list(model.parameters()), torch.randn(sum(p.numel() for p in model.parameters()))
    found = hessian_vector(nn.functional.cross_entropy(model(x), y), parameters, vector)
    torch.testing.assert_close(found, hessian(model, x, y) @ vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_logs_the_eigenvalue_of_the_whole_step(parts):
    model, x, y, log = Net(), torch.randn(12, 4), torch.randint(3, (12,)), Memory()
    expected = torch.linalg.eigvalsh(hessian(model, x, y))[-1]
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), parts=parts)
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_steps=1, accelerator="cpu", logger=log, callbacks=[Curvature(iterations=200)], **quiet)
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=12))
    assert log.series("curvature/largest_eigenvalue") == [pytest.approx(float(expected), rel=2e-2)]


def test_parts_with_different_numbers_of_ignored_labels_equal_one_part():
    model, x, y = Net(), torch.randn(12, 4), torch.randint(3, (12,))
    y[[0, 1, 2, 3, 7]] = -100
    found = []
    for parts in (1, 2):
        log = Memory()
        module = RecipeModule(model, nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.0), parts=parts)
        quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = L.Trainer(max_steps=1, accelerator="cpu", logger=log, callbacks=[Curvature(iterations=5)], **quiet)
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=12))
        found += log.series("curvature/largest_eigenvalue")
    assert found[1] == pytest.approx(found[0], rel=1e-4)


class Once(torch.autograd.Function):
    """What has a first derivative only."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        return gradient.clone()


def test_a_layer_without_second_derivatives_is_told(problem):
    class Layer(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    model = nn.Sequential(nn.Linear(6, 8), Layer(), nn.Tanh(), nn.Linear(8, 3))
    problem.copy = lambda: model
    with pytest.raises(RecipeError, match="needs second derivatives, which Sequential has not"):
        problem.fit(Curvature(), steps=1)
