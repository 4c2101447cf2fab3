"""Models as people bring them: each trains, or is refused in one line before the first step."""

import copy

import pytest
import torch
from torch import nn

from plugins.averaging.ema import EMA
from plugins.base import RecipeError
from plugins.clipping.norm import ClipNorm
from plugins.regularizer.l2 import L2Penalty
from plugins.wrapper.sam import SAM
from tests.recipes.data.test_targets import SAMPLES, Returns, features, fit, labels


class Model(nn.Module):
    """A linear layer, and what a subclass adds."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x)


class Tied(Model):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.layer(self.second(self.first(x).relu()))


class Unused(Model):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(4, 4)


class Frozen(Model):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, x):
        return self.layer(self.trunk(x))


class ReplacedBuffer(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + len(x)
        return self.layer(x)


class Counts(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("kept", torch.zeros(2), persistent=False)

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


class NoneBuffer(Model):
    def __init__(self):
        super().__init__()
        self.register_buffer("nothing", None)
        self.register_parameter("empty", None)


class Recurrent(Model):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(2, 6, batch_first=True)

    def forward(self, x):
        return self.layer(self.cell(x.view(-1, 3, 2))[0][:, -1])


class Attention(Model):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
        self.token = nn.Parameter(torch.zeros(1, 1, 6))

    def forward(self, x):
        return self.layer(self.encoder(torch.cat([self.token.expand(len(x), 1, 6), x[:, None]], 1))[:, 0])


class Scalar(Model):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.scale * self.layer(x)


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.zeros(3))])
        self.ways = nn.ModuleDict({"one": nn.Identity(), "two": nn.ReLU()})

    def forward(self, x):
        return self.ways["one"](x) @ self.weights[0] + self.weights[1]


class Shared(nn.Module):
    """One layer object in two places."""

    def __init__(self):
        super().__init__()
        layer = nn.Linear(6, 6)
        self.body = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x))


class InPlace(Model):
    def forward(self, x):
        return self.layer(x.clone().mul_(2)).add_(1)


class OtherInEvaluation(Model):
    def forward(self, x):
        return self.layer(x) if self.training else self.layer(x.double().float())


class Checkpointed(Model):
    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=False)


class Slots(Model):
    """With attributes that are neither modules nor parameters."""

    def __init__(self):
        super().__init__()
        self.names, self.twice = ["a"], lambda x: 2 * x

    def forward(self, x):
        return self.twice(self.layer(x))


class Subclassed(nn.Sequential):
    """A container of one's own with the activation of one's own."""

    def __init__(self):
        super().__init__(nn.Linear(6, 8), nn.Mish(), nn.BatchNorm1d(8), nn.Linear(8, 3))


class WithoutParameters(nn.Module):
    def forward(self, x):
        return x[:, :3]


class AllFrozen(Model):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Detached(Model):
    def forward(self, x):
        return self.layer(x).detach()


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(3)

    def forward(self, x):
        return self.layer(x)


def parametrized(wrap):
    return lambda: nn.Sequential(wrap(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))


def scripted():
    return torch.jit.script(nn.Sequential(nn.Linear(6, 3)))


TRAIN = {
    **{model.__name__: model for model in (Model, Tied, Unused, Frozen, ReplacedBuffer, Counts, NoneBuffer, Recurrent)},
    **{model.__name__: model for model in (Attention, Scalar, Lists, Shared, InPlace, OtherInEvaluation, Checkpointed, Slots)},
    "Subclassed": Subclassed,
    "weight norm": parametrized(nn.utils.parametrizations.weight_norm),
    "spectral norm": parametrized(nn.utils.parametrizations.spectral_norm),
    "orthogonal": parametrized(nn.utils.parametrizations.orthogonal),
    "instance norm": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True), nn.Flatten(), nn.Linear(6, 3)
    ),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Sequential(Model()))),
    "alpha dropout": lambda: nn.Sequential(nn.Linear(6, 6), nn.SELU(), nn.AlphaDropout(0.2), nn.Linear(6, 3)),
    "bilinear": lambda: Returns(lambda output: output * 1, 3),
    "dict": lambda: Returns(lambda output: {"": output}),
    "ordered outputs": lambda: Returns(lambda output: {"features": output.detach(), "": output}),
    "double": lambda: Model().double(),
    "Lazy": Lazy,
}
REFUSED = {
    "WithoutParameters": (WithoutParameters, "no parameter"),
    "AllFrozen": (AllFrozen, "no parameter"),
    "Detached": (Detached, "no gradient"),
    "Tuple": (lambda: Returns(lambda output: (output,)), "returns a tuple"),
    "Logits": (lambda: Returns(lambda output: {"logits": output}), "returns a dict with logits"),
    "Whole numbers": (lambda: Returns(lambda output: output.argmax(1, keepdim=True).expand(-1, 3)), "no gradient"),
    "Too few samples": (lambda: Returns(lambda output: output[1:]), "the shape"),
    "One output": (lambda: Returns(lambda output: output[:, :1]), "one output"),
}
assert len(TRAIN) + len(REFUSED) >= 30


@pytest.mark.parametrize("make", TRAIN.values(), ids=TRAIN)
@pytest.mark.parametrize("technique", ["plain", "several"])
def test_trains(make, technique):
    torch.manual_seed(0)
    model, x, y = make(), features(), labels()
    known = not any(map(nn.parameter.is_lazy, model.parameters()))
    before = copy.deepcopy(dict(model.named_parameters())) if known else {}
    plugins = (L2Penalty(0.01), SAM(0.05), EMA(0.5), ClipNorm(1.0)) if technique == "several" else ()
    module = fit(model, (x, y), *plugins)
    after = dict(module.model.named_parameters())
    assert set(before) <= set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name, parameter in before.items() if not parameter.requires_grad or name.startswith("unused")}
    assert (changed or not known) and not changed & {name for name in frozen if not before[name].requires_grad}
    assert all(torch.isfinite(torch.tensor(value)) for value in module.metrics.values())
    assert 0 <= module.metrics["val/acc"] <= 1
    if technique == "plain" and not any(isinstance(layer, (nn.BatchNorm1d, nn.AlphaDropout)) for layer in model.modules()):
        with torch.no_grad():
            output = module.eval().outputs(x.to(next(model.parameters()).dtype))[""]
            assert float((output.argmax(1) == y).float().mean()) == pytest.approx(module.metrics["val/acc"], abs=2 / SAMPLES)


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_is_refused_in_one_line(make, says):
    with pytest.raises(RecipeError, match=says) as refused:
        fit(make(), (features(), labels()))
    assert "\n" not in str(refused.value)


class Expanded(Model):
    def __init__(self, persistent):
        super().__init__()
        self.register_buffer("mask", torch.ones(1).expand(3), persistent=persistent)

    def forward(self, x):
        return self.layer(x) * self.mask


def test_a_buffer_into_which_nothing_can_be_loaded_is_refused_before_the_first_batch():
    fit(Expanded(persistent=False), (features(), labels()), steps=1)
    fit(Expanded(persistent=False), (features(), labels()), SAM(0.05), steps=1)  # whose second pass puts buffers back
    with pytest.raises(RecipeError, match=r"mask of the model .* register the buffer as .clone\(\)"):
        fit(Expanded(persistent=True), (features(), labels()), steps=1)
