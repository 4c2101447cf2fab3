import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from plugins.base import RecipeError
from plugins.multitask._aggregated import inner_products
from plugins.multitask.cagrad import CAGrad, cagrad_weights
from plugins.multitask.mgda import mgda_weights
from tests.plugins.multitask.three_tasks import assert_one_task_is_plain


def test_the_example_of_the_literature():
    gradients = torch.tensor([[-4.0, 1, 1], [6, 1, 1]])
    found = cagrad_weights(inner_products(gradients), 0.5) @ gradients
    torch.testing.assert_close(found, torch.tensor([0.1835, 1.2041, 1.2041]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9, 3.0])
def test_two_tasks_by_looking_at_all_weights(c):
    gradients = torch.randn(2, 5)
    gradients[1] -= gradients[0]
    first = torch.linspace(0, 1, 100_001).double()
    means = torch.stack([first, 1 - first], 1) @ gradients.double()
    mean = gradients.double().mean(0)
    best = means[(means @ mean + c * mean.norm() * means.norm(dim=1)).argmin()]
    expected = mean + c * mean.norm() / best.norm() * best
    found = cagrad_weights(inner_products(gradients), c).double() @ gradients.double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tasks", [1, 3, 6])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("c", [0.4, 0.8])
def test_helps_the_task_that_it_helps_least_as_much_as_can_be(tasks, size, c):
    """No point of the ball helps it more than the dual problem says, which another solver minimizes."""
    gradients = torch.randn(tasks, 9)
    weights = cagrad_weights(inner_products(gradients * size), c).double().numpy()
    gradients = gradients.double().numpy()
    mean, found = gradients.mean(0), weights @ gradients
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(found - mean) <= radius * (1 + 1e-4)
    whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
    bound = minimize(
        lambda w: w @ gradients @ mean + radius * np.linalg.norm(w @ gradients),
        np.full(tasks, 1 / tasks),
        bounds=[(0, 1)] * tasks,
        constraints=whole,
        options={"ftol": 1e-12, "maxiter": 1000},
    ).fun
    assert (gradients @ found).min() >= bound - 1e-3 * np.square(gradients).sum()


def test_is_the_mean_at_0_and_goes_the_way_of_mgda_far_from_it():
    gradients = torch.randn(3, 9)
    products = inner_products(gradients)
    assert cagrad_weights(products, 0.0).tolist() == pytest.approx([1 / 3] * 3)
    far, shortest = cagrad_weights(products, 1e5) @ gradients, mgda_weights(products) @ gradients
    torch.testing.assert_close(far / far.norm(), shortest / shortest.norm(), rtol=1e-2, atol=1e-2)


def test_where_gradients_cancel_each_other():
    one = torch.randn(6)
    opposite, unequal = torch.stack([one, -one]), torch.stack([one, -0.5 * one])
    assert (cagrad_weights(inner_products(opposite), 0.5) @ opposite).norm() < 1e-3 * one.norm()
    # of all that the ball has, from 0.125 to 0.375 times the first one, the least harms the second least
    found = cagrad_weights(inner_products(unequal), 0.5) @ unequal
    torch.testing.assert_close(found, 0.125 * one, rtol=1e-2, atol=1e-3)
    assert cagrad_weights(inner_products(torch.zeros(2, 6)), 0.5).isfinite().all()


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_an_overflow_stays_one(bad):
    gradients = torch.randn(2, 4)
    gradients[0, 1] = bad
    assert (cagrad_weights(inner_products(gradients), 0.5) @ gradients).isnan().all()


def test_refuses_what_is_no_distance():
    with pytest.raises(RecipeError, match="c must be a number ≥ 0, got -1"):
        CAGrad(c=-1)


def test_one_task_equals_the_plain_run_bit_for_bit():
    assert_one_task_is_plain(CAGrad)
