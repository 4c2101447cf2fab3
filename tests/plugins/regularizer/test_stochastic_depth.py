import pytest
import torch
from torch import nn
from torchvision import ops

from plugins.base import RecipeError, Setting, Task
from plugins.regularizer.stochastic_depth import StochasticDepth, StochasticDepthLayer, rates, stochastic_depth
from recipes.models.cnn import CNN
from recipes.models.resnet18 import ResNet18


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(64, 3), (32, 4, 5, 6)])
def test_equals_torchvision(p, shape):
    x = torch.randn(shape)
    torch.manual_seed(3)
    expected = ops.stochastic_depth(x, p, mode="row")
    torch.manual_seed(3)
    torch.testing.assert_close(stochastic_depth(x, p), expected)


def test_zero_is_the_same_tensor():
    x = torch.randn(4, 5)
    assert stochastic_depth(x, 0.0) is x


def test_rates_grow_with_depth():
    assert rates(0.2, 5) == pytest.approx(torch.linspace(0, 0.2, 5).tolist())  # as torchvision and timm have it
    assert rates(0.2, 3, "uniform") == [0.2, 0.2, 0.2]
    assert rates(0.2, 1) == [0.2]


@pytest.mark.parametrize(("arguments", "message"), [({"p": 1.5}, "p must be a"), ({"mode": "row"}, "linear, uniform")])
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        StochasticDepth(**arguments)


def dropped(model, shape, **arguments):
    plugin = StochasticDepth(**arguments)
    plugin.prepare(Setting(shape, (Task("", "classification", 3),)))
    return plugin.transform_model(model), plugin


def layers(model):
    return {name: part.p for name, part in model.named_modules() if isinstance(part, StochasticDepthLayer)}


def test_acts_on_the_branches_of_resnet18():
    model, plugin = dropped(ResNet18((1, 8, 8), 3), (1, 8, 8), p=0.7)
    names = [f"layer{stage}.{block}.bn2.stochastic_depth" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert layers(model) == pytest.approx(dict(zip(names, [n / 10 for n in range(8)], strict=True)))
    assert plugin.remarks == ["residual branches found: 8"]


class Net(nn.Module):
    """One block, whose branch is known."""

    def __init__(self):
        super().__init__()
        self.norm, self.branch = nn.LayerNorm(6), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x + self.branch(self.norm(x)))


def test_each_sample_loses_its_branch_or_has_it_scaled():
    plain = Net()
    x = torch.randn(500, 6)
    branch = plain.branch(plain.norm(x))
    without, scaled, whole = plain.head(x), plain.head(x + branch / 0.6), plain(x)
    model, _ = dropped(plain, (6,), p=0.4, mode="uniform")
    out = model(x)
    gone, kept = (torch.isclose(out, other, atol=1e-5).all(1) for other in (without, scaled))
    assert (gone | kept).all() and 0.3 < gone.float().mean() < 0.5
    torch.testing.assert_close(model.eval()(x), whole)


def test_gets_the_place_of_a_layer_that_drops_branches_already():
    model = Net()
    model.branch.append(ops.StochasticDepth(0.9, "batch"))
    model, plugin = dropped(model, (6,), p=0.2)
    assert layers(model) == {"branch.3": 0.2}
    assert plugin.remarks == ["residual branches found: 1, 1 of them with a layer that dropped them already"]


def test_a_model_without_branches_is_refused():
    with pytest.raises(RecipeError, match="regularizer/stochastic_depth: no residual branch in CNN.*model=resnet18"):
        dropped(CNN((1, 8, 8), 3), (1, 8, 8))


def test_a_model_in_evaluation_mode_is_refused():
    with pytest.raises(RecipeError, match="are in evaluation mode, in which nothing is dropped"):
        dropped(Net().eval(), (6,))


def test_works_with_a_branch_that_is_the_first_of_a_tuple():
    from tests.plugins.test_residual import Attention

    model, _ = dropped(Attention(), (8,), p=0.5)
    x = torch.randn(200, 8)
    tokens = x.view(-1, 4, 2).repeat(1, 1, 4).mean(1)
    unchanged = torch.isclose(model(x), tokens, atol=1e-6).all(1)
    assert 0.3 < unchanged.float().mean() < 0.7
