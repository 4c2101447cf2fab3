"""What the tests of normalizations share."""

import torch
from torch import nn

from plugins.activations import passage
from plugins.base import Setting
from plugins.normalization._kinds import is_norm


def normalized(plugin, model, shape):
    """A model with an option's norms."""
    plugin.prepare(Setting(shape, ()))
    return plugin.transform_model(model)


def norms(model):
    """All norm layers, by name."""
    return {name: module for name, module in model.named_modules() if is_norm(module)}


def hosts(model):
    """The layers behind which one was put."""
    return [name for name, module in model.named_modules() if hasattr(module, "attached")]


def perceptron():
    return nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 12), nn.ReLU(), nn.Linear(12, 4),
    )  # fmt: skip


class Tokens(nn.Module):
    """Tokens (samples, length, features) with a layer norm in front of its layers, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.first, self.second, self.head = nn.Linear(6, 10), nn.Linear(10, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head((x + self.second(nn.functional.gelu(self.first(self.norm(x))))).mean(1))


def expect_reloads(plugin, make, shape, x):
    """What was trained is loaded into a new model, by the names that it has, and gives the same."""
    model = normalized(plugin, make(), shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model(x)  # running statistics, where there are some
    again = normalized(type(plugin)(), make(), shape)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x), model.eval()(x))
    assert passage(again, shape).activations  # other techniques find their places
