import pytest
import torch

from plugins.multitask._aggregated import inner_products
from plugins.multitask.nash import NashMTL, nash_weights
from tests.plugins.multitask.three_tasks import assert_one_task_is_plain


def direction(gradients):
    found = nash_weights(inner_products(gradients)).double() @ gradients.double()
    return found / found.norm()


def test_the_example_of_the_literature():
    """Of a library whose gradient has at most the norm 1."""
    gradients = torch.tensor([[-4.0, 1, 1], [6, 1, 1]])
    torch.testing.assert_close(direction(gradients).float(), torch.tensor([0.0542, 0.7061, 0.7061]), rtol=0, atol=1e-4)


def test_two_tasks_in_closed_form():
    """The bisector, whatever the lengths."""
    one, other = gradients = torch.randn(2, 7) * torch.rand(2, 1).mul(8).exp()
    expected = (one / one.norm() + other / other.norm()).double()
    torch.testing.assert_close(direction(gradients), expected / expected.norm(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tasks", [1, 2, 4, 7])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_the_equations_of_the_bargaining_solution(tasks, size):
    gradients = torch.randn(tasks, 40)
    gradients[1:] -= 0.5 * gradients[:1]
    weights = nash_weights(inner_products(gradients * size)).double()
    gradients = gradients.double()
    products = gradients @ gradients.T
    assert (weights > 0).all()
    torch.testing.assert_close(
        weights * (products @ weights), torch.full_like(weights, products.norm().item()), rtol=1e-3, atol=0
    )


def test_a_loss_of_another_scale_leaves_the_direction():
    gradients = torch.randn(3, 9)
    scaled = gradients * torch.tensor([[1.0], [1e4], [1e-4]])
    torch.testing.assert_close(direction(scaled), direction(gradients), rtol=1e-2, atol=1e-3)


def test_where_gradients_cancel_each_other_there_is_no_step():
    one = torch.randn(6)
    opposite = torch.stack([one, -3 * one])
    assert (nash_weights(inner_products(opposite)) @ opposite).norm() < 1e-2 * one.norm()
    with_zero = torch.stack([one, torch.zeros(6)])
    weights = nash_weights(inner_products(with_zero))
    assert weights[1] == 0 and weights[0] > 0
    assert nash_weights(inner_products(torch.zeros(2, 6))).tolist() == [0, 0]


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_an_overflow_stays_one(bad):
    gradients = torch.randn(2, 4)
    gradients[0, 1] = bad
    assert (nash_weights(inner_products(gradients)) @ gradients).isnan().all()


def test_one_task_equals_the_plain_run_bit_for_bit():
    assert_one_task_is_plain(NashMTL)
