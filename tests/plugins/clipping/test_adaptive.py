from types import SimpleNamespace

import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting
from plugins.clipping.adaptive import ClipAdaptively, clip_adaptively


def nets():
    """Two equal nets with equal gradients."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv1d(4, 3, 1), nn.Linear(5, 6))
    twin = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv1d(4, 3, 1), nn.Linear(5, 6))
    twin.load_state_dict(net.state_dict())
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        one.grad = torch.randn_like(one) * torch.rand(len(one)).view(-1, *[1] * (one.ndim - 1)) ** 4
        other.grad = one.grad.clone()
    return net, twin


@pytest.mark.parametrize(("ratio", "eps"), [(0.01, 1e-3), (0.5, 1e-3), (0.5, 2.0), (100.0, 1e-3)])
def test_equals_timm(ratio, eps):
    ours, timms = nets()
    clip_adaptively(list(ours.parameters()), ratio, eps)
    pytest.importorskip("timm").utils.agc.adaptive_clip_grad(timms.parameters(), ratio, eps)
    for one, other in zip(ours.parameters(), timms.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_each_unit_is_at_most_its_share_and_others_stay():
    net, before = nets()
    clip_adaptively(list(net.parameters()), 0.1, 1e-3)
    weight, gradient, given = net[3].weight, net[3].weight.grad, before[3].weight.grad
    for unit in range(6):
        bound = 0.1 * float(weight[unit].detach().norm())
        expected = given[unit] * min(1.0, bound / float(given[unit].norm()))
        torch.testing.assert_close(gradient[unit], expected)


def test_a_nan_stays_one_and_a_parameter_without_gradient_is_left_alone():
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    parameters[0].grad = torch.tensor([[torch.nan, 1.0], [9.0, 9.0]])
    clip_adaptively(parameters, 0.1, 1e-3)
    assert parameters[0].grad[0, 0].isnan() and parameters[0].grad[1].norm() < 0.2 and parameters[1].grad is None


@pytest.mark.parametrize("head", [False, True])
def test_the_output_layer_is_left_alone_unless_it_is_asked_for(problem, head):
    def sgd(groups):
        return torch.optim.SGD(groups, lr=1.0)

    plain = problem.fit(steps=1, optimizer=sgd).model
    clipped = problem.fit(ClipAdaptively(1e-3, head=head), steps=1, optimizer=sgd).model
    start = problem.copy()
    trained = zip(clipped.parameters(), plain.parameters(), start.parameters(), strict=True)
    moved = [float((a - c).detach().norm() / (b - c).detach().norm()) for a, b, c in trained]
    assert moved[0] < 0.5 and (moved[-2] < 0.5 if head else moved[-2] == pytest.approx(1.0))
    assert problem.log.series("adaptive/before")[0] > problem.log.series("adaptive/after")[0] > 0


def test_a_tied_output_layer_is_left_alone():
    """Torch lists a shared weight under its first name alone."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[6].weight = model[4].weight
    clipped, plugin = SimpleNamespace(model=model), ClipAdaptively(1e-3)
    plugin.prepare(Setting((6,), ()))
    plugin.record = lambda *_: None
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    plugin.transform_gradient(clipped, list(model.parameters()))
    assert bool((model[6].weight.grad == 1).all()) and bool((model[0].weight.grad < 1).all())


def test_a_model_that_is_its_output_layer_is_refused():
    model = nn.Linear(6, 3)
    for head in (True, False):
        plugin = ClipAdaptively(0.1, head=head)
        plugin.prepare(Setting((6,), ()))
        plugin.record = lambda *_: None
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        if head:
            plugin.transform_gradient(SimpleNamespace(model=model), list(model.parameters()))
            continue
        with pytest.raises(
            RecipeError, match="leaves the output layer alone, and Linear is that layer: type clipping.head=true"
        ):
            plugin.transform_gradient(SimpleNamespace(model=model), list(model.parameters()))


def test_refuses_values_out_of_range():
    with pytest.raises(RecipeError, match="^ratio must be"):
        ClipAdaptively(0.0)


@pytest.mark.parametrize("groups", [1, 2])
def test_units_of_a_transposed_convolution_are_its_outputs(groups):
    model, plugin = (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=groups), nn.Flatten(), nn.Linear(6, 2)),
        ClipAdaptively(0.1),
    )
    plugin.prepare(Setting((4, 1, 1), ()))
    weight = model[0].weight
    weight.grad = given = torch.randn_like(weight) * torch.rand(6 // groups).view(-1, 1, 1) ** 2
    given = given.clone()
    plugin.clip(SimpleNamespace(model=model), [weight])
    for group in range(groups):
        rows = slice(group * 4 // groups, (group + 1) * 4 // groups)
        for unit in range(6 // groups):
            share = 0.1 * weight[rows, unit].detach().norm() / given[rows, unit].norm()
            torch.testing.assert_close(weight.grad[rows, unit], given[rows, unit] * share.clamp_max(1))
