import pytest
import torch

from plugins.multitask._aggregated import inner_products
from plugins.multitask.mgda import MGDA, mgda_weights
from tests.plugins.multitask.three_tasks import assert_one_task_is_plain, characters, fit, net

SIZES = [(1, 1), (1e-25, 1e-25), (1e25, 1e25), (1, 1e4)]


def gradients_of(tasks, sizes=(1, 1), numbers=8):
    gradients = torch.randn(tasks, numbers)
    gradients[1:] -= 0.3 * gradients[:1]  # conflicts
    return gradients * torch.logspace(*torch.tensor(sizes).double().log10().tolist(), tasks).unsqueeze(1)


def test_the_example_of_the_literature():
    gradients = torch.tensor([[-4.0, 1, 1], [6, 1, 1]])
    torch.testing.assert_close(
        mgda_weights(inner_products(gradients)) @ gradients, torch.tensor([0.0, 1, 1]), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("sizes", SIZES)
def test_two_tasks_in_closed_form(sizes):
    gradients = gradients_of(2, sizes)
    one, other = gradients.double()
    first = ((other - one) @ other / (one - other).square().sum()).clamp(0, 1)
    torch.testing.assert_close(
        mgda_weights(inner_products(gradients)).double(), torch.stack([first, 1 - first]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("tasks", [1, 3, 6])
@pytest.mark.parametrize("sizes", SIZES)
def test_no_mean_is_shorter(tasks, sizes):
    """What is known of the shortest point of a convex set alone: g·gᵢ ≥ ‖g‖² for all of it."""
    gradients = gradients_of(tasks, sizes)
    weights = mgda_weights(inner_products(gradients)).double()
    assert (weights >= 0).all() and weights.sum().item() == pytest.approx(1)
    gradients = gradients.double() / max(sizes)
    found = weights @ gradients
    lengths = gradients.norm(dim=1)
    assert (gradients @ found - found @ found >= -1e-3 * lengths * found.norm().clamp_min(1e-3 * lengths.min())).all()


def test_where_no_step_helps_all_there_is_none():
    one = torch.randn(6)
    both = torch.stack([one, -3 * one])
    assert (mgda_weights(inner_products(both)) @ both).norm() < 1e-3 * one.norm()
    with_zero = torch.stack([one, torch.zeros(6)])
    assert mgda_weights(inner_products(with_zero)).tolist() == [1, 0]  # a task without a known label has no say
    assert mgda_weights(inner_products(torch.zeros(2, 6))).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_an_overflow_stays_one(bad):
    gradients = torch.randn(2, 4)
    gradients[0, 1] = bad
    assert (mgda_weights(inner_products(gradients)) @ gradients).isnan().all()


def test_one_task_equals_the_plain_run_bit_for_bit():
    assert_one_task_is_plain(MGDA)


def test_weights_are_logged():
    log = fit(net(), characters(0), MGDA()).log
    weights = [log.series(f"mgda/weight_{task}") for task in ("alphabet", "drawer", "even")]
    assert [sum(of_step) for of_step in zip(*weights, strict=True)] == pytest.approx([1, 1, 1])
    assert {"mgda/alphabet_loss", "mgda/cosine", "mgda/conflicts"} <= {name for row in log.rows for name in row}
