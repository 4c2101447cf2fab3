import math

import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.nn import functional

from plugins.base import Refusal, Selection, Setting, Task, check_selection
from plugins.parameters import by_unit
from plugins.regularizer.l1 import soft_threshold
from plugins.regularizer.norm_ball import NormBall, onto_ball
from tests.plugins.regularizer.test_l1 import in_groups

# The projection


def test_max_norm_is_that_of_torch():
    w = torch.randn(300, 7) * torch.rand(300, 1) * 3
    found = onto_ball(w, 1.5, 2)
    torch.testing.assert_close(found, torch.renorm(w, 2, 0, 1.5))
    inside = w.norm(dim=1) <= 1.5
    assert 10 < inside.sum() < 290 and torch.equal(found[inside], w[inside])


def test_the_l1_ball_is_reached_by_the_threshold_that_a_root_finder_finds():
    for row in torch.randn(5, 40).double():
        found = onto_ball(row.unsqueeze(0), 3.0, 1)[0]
        root = brentq(lambda tau, row=row: functional.softshrink(row, tau).abs().sum().item() - 3.0, 0, row.abs().max().item())
        torch.testing.assert_close(found, functional.softshrink(row, root))
        assert found.abs().sum().item() == pytest.approx(3)


@pytest.mark.parametrize("p", [1, 2])
def test_what_is_inside_or_nothing_stays(p):
    w = torch.randn(4, 6)
    w[2] = 0
    assert torch.equal(onto_ball(w, 100.0, p), w)


@pytest.mark.parametrize("p", [1, 2])
def test_no_point_of_the_ball_is_nearer(p):
    w = 3 * torch.randn(1, 5)
    found = onto_ball(w, 1.0, p)
    others = torch.randn(20_000, 5)
    others = others / others.norm(p, dim=1, keepdim=True) * torch.rand(20_000, 1) ** 0.2
    assert (others - w).norm(dim=1).min() >= (found - w).norm() - 1e-5


@pytest.mark.parametrize("p", [1, 2])
def test_the_constrained_form_has_the_minimum_of_the_penalised_one(p):
    """min J + λΩ(w), and min J subject to Ω(w) ≤ k with the k of that minimum; lecture A."""
    x, y = torch.randn(60, 8).double(), torch.randn(60).double()
    hessian, slope = x.T @ x / 60, x.T @ y / 60
    rate = 1 / torch.linalg.eigvalsh(hessian)[-1].item()
    penalised = torch.linalg.solve(hessian + 0.3 * torch.eye(8), slope)  # λ/2 ‖w‖²
    if p == 1:
        penalised = torch.zeros(8).double()
        for _ in range(400):
            penalised = soft_threshold(penalised - rate * (hessian @ penalised - slope), rate * 0.1)
    k, w = penalised.norm(p).item(), torch.zeros(8).double()
    for _ in range(400):
        w = onto_ball((w - rate * (hessian @ w - slope)).unsqueeze(0), k, p)[0]
    torch.testing.assert_close(w, penalised)
    assert torch.equal(w == 0, penalised == 0) and (p == 1 or not (w == 0).any())  # zeros are of the L1 norm alone


# Which weights


@pytest.mark.parametrize("groups", [1, 2])
def test_units_of_a_transposed_convolution_are_its_outputs(groups):
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    rows = by_unit(layer.weight, layer).flatten(0, 1).flatten(1)
    assert rows.shape == (6, 4 // groups * 9)
    x = torch.randn(1, 4, 1, 1)
    for unit, outputs in enumerate(layer(x)[0]):  # of one pixel: Σ over inputs of x · kernel
        inputs = x[0, :, 0, 0].chunk(groups)[unit // (6 // groups)]
        torch.testing.assert_close(outputs.flatten(), inputs @ rows[unit].view(-1, 9))


def by_hand(problem, steps, k, p, scope):
    model = problem.copy().train()
    for x, y in problem.batches[:steps]:
        model.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter -= (0.02 if name.startswith("3.") else 0.1) * parameter.grad
            layers = [model[0].weight, model[3].weight]
            if scope == "all":
                whole = onto_ball(torch.cat([w.flatten() for w in layers]).unsqueeze(0), k, p)[0]
                for w, part in zip(layers, whole.split([w.numel() for w in layers]), strict=True):
                    w.copy_(part.view_as(w))
            for w in layers:
                if scope == "layer":
                    w.copy_(onto_ball(w.view(1, -1), k, p).view_as(w))
                elif scope == "row":
                    w.copy_(torch.renorm(w, 2, 0, k) if p == 2 else onto_ball(w, k, p))
    return model


@pytest.mark.parametrize(
    ("scope", "k", "p"), [("layer", 0.9, 2), ("row", 0.5, 2), ("all", 1.0, 2), ("row", 0.7, 1), ("all", 3.0, 1)]
)
def test_trains_as_the_loop_by_hand(problem, scope, k, p):
    model = problem.fit(NormBall(k, p, scope), steps=4, optimizer=in_groups).model
    for (name, ours), theirs in zip(model.named_parameters(), by_hand(problem, 4, k, p, scope).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    weights = [model[0].weight, model[3].weight]
    norms = {
        "layer": lambda: [w.norm(p) for w in weights],
        "row": lambda: [w.norm(p, dim=1).max() for w in weights],
        "all": lambda: [torch.cat([w.flatten() for w in weights]).norm(p)],
    }[scope]()
    assert max(norms).item() <= k * (1 + 1e-5)
    assert max(problem.log.series("norm_ball/largest_norm")) > k


def test_refuses_weights_that_are_no_evaluated_ones():
    selection = Selection([], Setting((6,), (Task("", "classification", 3),)), chosen=frozenset({"optimizer/schedule_free"}))
    with pytest.raises(Refusal, match="cannot bound the weights of optimizer=schedule_free"):
        NormBall().check(selection)
    assert NormBall(k=math.inf).is_off


@pytest.mark.parametrize("name", ["regularizer/spectral_norm", "normalization/weight_standardization"])
def test_refuses_weights_of_which_the_scale_says_nothing(name):
    selection = Selection([NormBall()], Setting((6,), (Task("", "classification", 3),)), chosen=frozenset({name}))
    with pytest.raises(Refusal, match=f"with {name}: .*a bound on what is trained bounds nothing; leave one of the two out"):
        check_selection(selection)
