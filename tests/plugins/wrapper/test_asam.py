import pytest
import torch
from torch import nn

from plugins.wrapper.asam import ASAM, AdaptivelySharpnessAware
from tests.plugins.wrapper.two_layers import (
    closure_of,
    flat,
    loss_and_gradient,
    moved,
    problem_of_two_layers,
    twins,
    weights_of,
)

RHO, RATE, ETA = 0.4, 0.1, 0.03


def test_is_the_published_step_written_out():
    """T is |w| + η of weights, 1 of biases; ε = ρ T²g / ‖Tg‖."""
    model, x, y = problem_of_two_layers()
    start = weights_of(model)
    first, g = loss_and_gradient(model, start, x, y)
    scale = [weight.abs() + ETA if weight.ndim > 1 else torch.ones_like(weight) for weight in start]
    norm = flat([t * part for t, part in zip(scale, g, strict=True)]).norm()
    up = [RHO * t**2 * part / norm for t, part in zip(scale, g, strict=True)]
    worst, g = loss_and_gradient(model, moved(start, up), x, y)
    optimizer = AdaptivelySharpnessAware(torch.optim.SGD(model.parameters(), lr=RATE), RHO, ETA)
    closure = closure_of(model, optimizer, x, y)
    torch.testing.assert_close(optimizer.step(closure), first)
    torch.testing.assert_close(weights_of(model), moved(start, g, -RATE))
    torch.testing.assert_close(optimizer.sharpness, worst - first)
    torch.testing.assert_close(optimizer.perturbation_norm, flat(up).norm())
    assert closure.calls == 2


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_equals_pytorch_optimizer_which_has_no_eta_and_scales_biases_too(base):
    oracle_class = pytest.importorskip("pytorch_optimizer").SAM
    model, twin, x, y = twins(bias=False)
    ours = AdaptivelySharpnessAware(base(model.parameters(), lr=0.05), RHO, 0.0)
    theirs = oracle_class(twin.parameters(), base, rho=RHO, adaptive=True, lr=0.05)
    for _ in range(8):
        ours.step(closure_of(model, ours, x, y))
        closure_of(twin, theirs, x, y)()
        theirs.step(closure_of(twin, theirs, x, y))
    torch.testing.assert_close(weights_of(model), weights_of(twin))


def test_models_of_one_function_are_as_sharp_whatever_their_scale():
    """Layers of a ReLU net that are scaled against each other: what ASAM is for, and SAM is not."""
    x, y = torch.randn(9, 5).double(), torch.randint(3, (9,))
    first, second = torch.randn(7, 5).double(), torch.randn(3, 7).double()
    found = []
    for factor in (1.0, 20.0):
        model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False)).double()
        with torch.no_grad():
            model[0].weight.copy_(factor * first)
            model[2].weight.copy_(second / factor)
        optimizer = AdaptivelySharpnessAware(torch.optim.SGD(model.parameters(), lr=RATE), RHO, 0.0)
        optimizer.step(closure_of(model, optimizer, x, y))
        found.append(optimizer.sharpness)
    torch.testing.assert_close(*found)


def test_weights_and_scales_of_norms_are_measured_by_their_size(problem):
    technique = ASAM()
    module = problem.fit(technique, steps=2)
    names = [name for name, _ in module.model.named_parameters()]
    assert [names[place] for place in sorted(technique.wrapper.places)] == ["0.weight", "1.weight", "3.weight"]
    assert len(problem.log.series("asam/perturbation_norm")) == len(problem.log.series("asam/sharpness")) == 2
