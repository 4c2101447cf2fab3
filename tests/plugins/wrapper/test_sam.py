import warnings

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal, Selection, Setting, check_selection
from plugins.regularizer.dropout import Dropout
from plugins.wrapper.sam import SAM, SharpnessAware
from tests.plugins.wrapper.two_layers import closure_of, problem_of_two_layers

RHO, RATE = 0.2, 0.1


def test_is_the_formula():
    model, x, y = problem_of_two_layers()
    start = [p.detach().clone() for p in model.parameters()]

    def gradient(weights):
        weights = [w.clone().requires_grad_() for w in weights]
        hidden = torch.tanh(x @ weights[0].T + weights[1])
        loss = nn.functional.cross_entropy(hidden @ weights[2].T + weights[3], y)
        return loss.detach(), torch.autograd.grad(loss, weights)

    first, g = gradient(start)
    norm = torch.cat([part.flatten() for part in g]).norm()
    worst, g = gradient([w + RHO * part / norm for w, part in zip(start, g, strict=True)])
    expected = [w - RATE * part for w, part in zip(start, g, strict=True)]

    optimizer = SharpnessAware(torch.optim.SGD(model.parameters(), lr=RATE), RHO)
    loss = optimizer.step(closure_of(model, optimizer, x, y))
    torch.testing.assert_close(list(model.parameters()), [nn.Parameter(w) for w in expected])
    torch.testing.assert_close(loss, first)
    torch.testing.assert_close(optimizer.sharpness, worst - first)
    assert float(optimizer.perturbation_norm) == pytest.approx(RHO)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_equals_pytorch_optimizer(base):
    oracle_class = pytest.importorskip("pytorch_optimizer").SAM
    model, x, y = problem_of_two_layers()
    twin, _, _ = problem_of_two_layers()
    twin.load_state_dict(model.state_dict())
    ours = SharpnessAware(base(model.parameters(), lr=0.05), RHO)
    theirs = oracle_class(twin.parameters(), base, rho=RHO, lr=0.05)
    for _ in range(10):
        ours.step(closure_of(model, ours, x, y))
        closure_of(twin, theirs, x, y)()
        theirs.step(closure_of(twin, theirs, x, y))
    torch.testing.assert_close(list(model.parameters()), list(twin.parameters()))


def test_restores_every_bit():
    model, x, y = problem_of_two_layers()
    model = model.float()
    seen = []

    class Still(torch.optim.SGD):
        def step(self, closure=None):
            closure()
            seen.extend(p.detach().clone() for group in self.param_groups for p in group["params"])

    before = [p.detach().clone() for p in model.parameters()]
    optimizer = SharpnessAware(Still(model.parameters(), lr=1.0), rho=3.3)
    optimizer.step(closure_of(model, optimizer, x.float(), y))
    assert all(torch.equal(a, b) for a, b in zip(seen, before, strict=True))


def test_parameters_without_a_gradient_stay():
    model, x, y = problem_of_two_layers()
    frozen, unused = model[0].weight.requires_grad_(False), nn.Parameter(torch.randn(3))
    before, kept = frozen.clone(), unused.detach().clone()
    optimizer = SharpnessAware(torch.optim.SGD([*model.parameters(), unused], lr=RATE), RHO)
    optimizer.step(closure_of(model, optimizer, x, y))
    assert torch.equal(frozen, before) and torch.equal(unused, kept)


def test_a_gradient_of_zero_is_no_nan():
    weight = nn.Parameter(torch.ones(2))
    optimizer = SharpnessAware(torch.optim.SGD([weight], lr=RATE), RHO)

    def closure():
        weight.grad = torch.zeros(2)
        return torch.tensor(0.0)

    optimizer.step(closure)
    assert torch.equal(weight, torch.ones(2)) and optimizer.perturbation_norm == 0


def test_trains_and_logs(problem, weights, same):
    module = problem.fit(SAM(rho=0.1))
    assert problem.log.series("sam/perturbation_norm") == [pytest.approx(0.1, rel=1e-4)] * 8
    assert len(problem.log.series("sam/sharpness")) == 8
    assert not same(weights(module), weights(problem.fit()))


def test_both_passes_see_the_same_dropout_masks(problem):
    masks = []

    class Watch(Dropout):
        def transform_model(self, model):
            model = super().transform_model(model)
            model[2].dropout.register_forward_hook(lambda layer, inputs, output: masks.append(output == 0))
            return model

    problem.fit(SAM(rho=0.1), Watch(p=0.5), steps=3)
    masks = masks[-6:]  # before them, the engine may have passed samples to learn their shape
    assert all(torch.equal(first, second) for first, second in zip(masks[::2], masks[1::2], strict=True))
    assert not torch.equal(masks[0], masks[2])


def test_refuses():
    setting = Setting((5,), ())
    with pytest.raises(Refusal, match="16-mixed: take bf16-mixed"):
        check_selection(Selection([SAM()], setting, precision="16-mixed"))
    check_selection(Selection([SAM()], setting, precision="bf16-mixed"))
    with pytest.raises(RecipeError, match="closure"):
        SharpnessAware(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=RATE), RHO).step()


def test_schedulers_and_checkpoints_see_one_optimizer():
    model, x, y = problem_of_two_layers()
    optimizer = SharpnessAware(torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9), RHO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        optimizer.step(closure_of(model, optimizer, x, y))
        scheduler.step()
    assert optimizer.optimizer.param_groups[0]["lr"] == RATE / 2
    twin, _, _ = problem_of_two_layers()
    other = torch.optim.SGD(twin.parameters(), lr=1.0, momentum=0.9)
    other.load_state_dict(optimizer.state_dict())
    assert len(other.state) == 4 and other.param_groups[0]["lr"] == RATE / 2
