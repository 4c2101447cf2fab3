"""Residual branches, in models that write their additions in all ways."""

import pytest
import torch
from torch import nn
from torchvision import models

from plugins.base import RecipeError
from plugins.residual import residual_branches
from recipes.models.resnet18 import ResNet18

OPTION = "regularizer/stochastic_depth"


class Block(nn.Module):
    """With a branch of two layers, added in a way that is to be given."""

    def __init__(self, add=lambda x, f: x + f, width=8, shortcut=None, end=None):
        super().__init__()
        self.one, self.norm, self.act = nn.Linear(width, 16), nn.BatchNorm1d(16), nn.ReLU()
        self.two = nn.Linear(16, 8)
        self.add, self.shortcut, self.end = add, shortcut, end

    def forward(self, x):
        f = self.two(self.act(self.norm(self.one(x))))
        return self.add(x if self.shortcut is None else self.shortcut(x), f if self.end is None else self.end(f))


def into(x, f):
    f += x
    return f


def into_clone(x, f):
    y = x.clone()
    y += f
    return y


class Parallel(nn.Module):
    """Two branches from one place, as in parallel attention."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.a(x) + self.b(x)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = Block(), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.last(self.inner(x))


class Scaled(nn.Module):
    """With a factor that no module applies, as in ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.gamma, self.f = nn.Parameter(torch.ones(8)), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.gamma * self.f(x)


class Attention(nn.Module):
    """Whose branch is the first of what attention returns."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.attention, self.batch_first = nn.MultiheadAttention(8, 2, batch_first=batch_first), batch_first

    def forward(self, x):
        x = x.view(-1, 4, 2).repeat(1, 1, 4)
        x = x if self.batch_first else x.transpose(0, 1)
        x = x + self.attention(x, x, x)[0]
        return x.mean(1 if self.batch_first else 0)


class Tokens(nn.Module):
    """Whose input leads to no graph; places are added to words, which is no residual branch."""

    def __init__(self):
        super().__init__()
        self.words, self.places, self.block = nn.Embedding(9, 8), nn.Embedding(8, 8), Block()

    def forward(self, x):
        return self.block((self.words(x) + self.places(torch.arange(x.shape[1]))).mean(1))


class StochasticDepth(nn.Identity):
    """What a library has."""


def net(*blocks, width=8):
    return nn.Sequential(nn.Linear(8, width), *blocks, nn.ReLU(), nn.Linear(8, 3))


def encoder(**arguments):
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **arguments), nn.Flatten()
    )


FOUND = {
    "x + f(x)": (lambda: net(Block()), ["1.two"]),
    "f(x) + x": (lambda: net(Block(lambda x, f: f + x)), ["1.two"]),
    "torch.add": (lambda: net(Block(torch.add)), ["1.two"]),
    "out += identity": (lambda: net(Block(into)), ["1.two"]),
    "out += branch": (lambda: net(Block(into_clone)), ["1.two"]),
    "a projection as shortcut": (lambda: net(Block(width=6, shortcut=nn.Linear(6, 8)), width=6), ["1.two"]),
    "a projection with a norm": (
        lambda: net(Block(width=6, shortcut=nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))), width=6), ["1.two"],
    ),
    "one behind the other": (lambda: net(Block(), nn.ReLU(), Block(into)), ["1.two", "3.two"]),
    "two from one place": (lambda: net(Parallel()), ["1.a", "1.b"]),
    "one in the other": (lambda: net(Nested()), ["1.inner.two", "1.last"]),
    "a factor": (lambda: net(Scaled()), ["1.f"]),
    "a view": (lambda: net(Block(lambda x, f: x + f.unsqueeze(0).squeeze(0))), ["1.two"]),
    "an Identity behind a function": (lambda: net(Ended()), ["1.end"]),
    "dropout at the end": (lambda: net(Block(end=nn.Dropout(0.1))), ["1.two"]),
    "attention": (Attention, ["attention"]),
    "transformer": (encoder, ["1.self_attn", "1.linear2"]),
    "transformer, norm first": (lambda: encoder(norm_first=True), ["1.self_attn", "1.linear2"]),
    "tokens": (Tokens, ["block.two"]),
    "a layer that drops it already": (lambda: net(Block(end=StochasticDepth())), ["1.end"]),
    "one block several times": (lambda: net(block := Block(), block), ["1.two"]),
    "frozen weights": (lambda: net(Block()).requires_grad_(False), ["1.two"]),
    "compiled": (lambda: torch.compile(net(Block()), backend="eager"), ["_orig_mod.1.two"]),
}  # fmt: skip


class Ended(nn.Module):
    """Whose branch ends with a module behind a function."""

    def __init__(self):
        super().__init__()
        self.f, self.end = nn.Linear(8, 8), nn.Identity()

    def forward(self, x):
        return x + self.end(torch.sin(self.f(x)))


@pytest.mark.parametrize(("make", "names"), FOUND.values(), ids=FOUND)
def test_finds_branches(make, names):
    model = make()
    found = residual_branches(model, (8,), OPTION)
    assert [branch.name for branch in found.found] == names and not found.undecided
    assert all(dict(model.named_modules())[branch.name] is branch.module for branch in found.found)
    assert [branch.own for branch in found.found] == [isinstance(branch.module, StochasticDepth) for branch in found.found]


class Gelu(nn.Module):
    """Whose additions are no residual ones."""

    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.044 * x**3)))


class Twice(nn.Module):
    """Whose operands are alike: neither is the shortcut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.a(x) + self.b(x)


class Shared(nn.Module):
    """Whose branch ends with a module that is called elsewhere too."""

    def __init__(self):
        super().__init__()
        self.act, self.f = nn.ReLU(), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.act(self.f(self.act(x)))


class Both(nn.Module):
    """Which returns its branch beside the sum."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(8, 8)

    def forward(self, x):
        f = self.f(x)
        return x + f, f


REFUSED = {
    "none": (lambda: net(), r"no residual branch in Sequential: looked for additions h \+ f\(h\); .*model=resnet18"),
    "additions of other kinds": (lambda: net(Gelu()), "no residual branch"),
    "a bias": (lambda: net(Bias()), "no residual branch"),
    "neither operand is the shortcut": (lambda: net(Twice()), "no residual branch in Sequential.*cannot tell the shortcut in 1"),
    "ends with a function": (lambda: net(Block(lambda x, f: x + torch.sin(f))), "no module returns the residual branch that is added in 1,"),
    "used elsewhere too": (lambda: net(Block(lambda x, f: (x + f) * f)), "no module returns the residual branch"),
    "an output too": (Both, "no module returns the residual branch that is added in Both,"),
    "a module in two places": (lambda: net(Shared()), "1.act, with which a residual branch ends, is called elsewhere too"),
    "samples not in the first dimension": (lambda: Attention(False), "the samples of a batch do not stand in the first dimension"),
    "other samples": (lambda: nn.Linear(7, 3), "do not pass through Linear"),

}  # fmt: skip


class Bias(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return x + self.bias


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_found_is_refused(make, message):
    with pytest.raises(RecipeError, match=message) as refused:
        residual_branches(make(), (8,), OPTION)
    assert "\n" not in str(refused.value)


def test_tells_of_additions_that_it_leaves_alone():
    found = residual_branches(net(Block(), Twice()), (8,), OPTION)
    assert [branch.name for branch in found.found] == ["1.two"] and found.undecided == ["2"]


def test_finds_those_of_resnet18():
    found = residual_branches(ResNet18((1, 8, 8), 10), (1, 8, 8), OPTION)
    assert [branch.name for branch in found.found] == [
        f"layer{stage}.{block}.bn2" for stage in (1, 2, 3, 4) for block in (0, 1)
    ]


def test_finds_those_of_torchvisions_resnet50_and_vit():
    found = residual_branches(models.resnet50(num_classes=3), (3, 32, 32), OPTION)
    sizes = (3, 4, 6, 3)
    assert [branch.name for branch in found.found] == [
        f"layer{stage + 1}.{block}.bn3" for stage, blocks in enumerate(sizes) for block in range(blocks)
    ]
    found = residual_branches(small_vit(), (3, 32, 32), OPTION)
    layers = [f"encoder.layers.encoder_layer_{layer}" for layer in range(3)]
    assert [branch.name for branch in found.found] == [
        f"{layer}.{end}" for layer in layers for end in ("self_attention", "mlp.3")
    ]


def small_vit():
    """What vit_b_16 is made of, in small."""
    return models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number", "own"),
    [
        ("vit_b_16", 24, 0),
        ("efficientnet_b0", 9, 9),
        ("convnext_tiny", 18, 18),
        ("swin_t", 12, 12),  # one layer for both branches of a block
        ("mobilenet_v2", 10, 0),
        ("regnet_y_400mf", 16, 0),
        ("resnext50_32x4d", 16, 0),
    ],
)
def test_finds_those_of_torchvisions_families(name, number, own):
    found = residual_branches(
        models.get_model(name, num_classes=3), (3, 224 if "vit" in name else 64, 224 if "vit" in name else 64), OPTION
    )
    assert (len(found.found), sum(branch.own for branch in found.found)) == (number, own) and not found.undecided


@pytest.mark.parametrize(
    ("name", "first", "number"),
    [
        ("resnet10t", "layer1.0.bn2", 4),
        ("convnext_atto", "stages.0.blocks.0.drop_path", 12),
        ("mixer_s32_224", "blocks.0.drop_path", 8),
    ],
)
def test_finds_those_of_timms_models(name, first, number):
    """A model of timm's, whose additions are no modules."""
    timm = pytest.importorskip("timm")
    size = 224 if name.endswith("224") else 32
    found = residual_branches(timm.create_model(name, pretrained=False, num_classes=3), (3, size, size), OPTION)
    assert found.found[0].name == first and len(found.found) == number


def test_looking_leaves_no_trace():
    model = net(Block())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    draws = torch.get_rng_state()
    residual_branches(model, (8,), OPTION)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws) and all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
