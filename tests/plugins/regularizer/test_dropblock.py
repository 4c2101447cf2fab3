import pytest
import torch
from torch import nn
from torchvision import models, ops

from plugins.base import RecipeError, Setting, Task
from plugins.regularizer.dropblock import DropBlock, DropBlockLayer, drop_blocks, seed_rate
from plugins.wrapper.sam import SAM
from recipes.models.cnn import CNN
from recipes.models.mlp import MLP
from recipes.models.resnet18 import ResNet18
from tests.harness import config_of, fit, same_bits, weights
from tests.plugins.regularizer.compiling import compile_and_fit


@pytest.mark.parametrize(("block", "size"), [(1, (6, 6)), (3, (8, 8)), (5, (9, 6)), (7, (7, 7)), (7, (14, 9)), (7, (5, 12))])
@pytest.mark.parametrize("p", [0.05, 0.3])
def test_equals_torchvision(block, size, p):
    x = torch.randn(16, 5, *size)
    torch.manual_seed(3)
    expected = ops.drop_block2d(x, p, block)
    block = min(block, *size)
    gamma = seed_rate(p, *size, block)
    torch.manual_seed(3)
    seeds = torch.empty(16, 5, size[0] - block + 1, size[1] - block + 1).bernoulli_(gamma).bool()
    torch.testing.assert_close(drop_blocks(x, seeds, block), expected)


@pytest.mark.parametrize(("block", "height", "width"), [(2, 5, 4), (4, 4, 9), (6, 6, 6), (3, 7, 7)])
def test_squares_of_even_sides_too_cover_what_they_should(block, height, width):
    seeds = torch.rand(3, 2, height - block + 1, width - block + 1) < 0.2
    kept = torch.ones(3, 2, height, width)
    for sample, channel, row, column in seeds.nonzero().tolist():
        kept[sample, channel, row : row + block, column : column + block] = 0
    x = torch.randn(3, 2, height, width)
    torch.testing.assert_close(drop_blocks(x, seeds, block), x * kept * kept.numel() / kept.sum().clamp(min=1))


@pytest.mark.parametrize(("block", "size"), [(7, 2), (7, 6), (2, 8), (3, 9)])
def test_drops_about_p_and_keeps_the_mean(block, size):
    layer = DropBlockLayer(0.1, block)
    out = layer(torch.ones(4000, 4, size, size))
    dropped = (out == 0).float().mean().item()
    assert 0.07 < dropped < 0.12  # blocks overlap
    assert out.mean().item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(layer.eval()(out), out)


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 7), (4, 3, 1, 1)])
def test_leaves_alone_what_is_no_map(shape):
    x = torch.randn(shape)
    assert DropBlockLayer(0.9, 3)(x) is x


def test_all_may_be_dropped():
    assert torch.equal(DropBlockLayer(1.0, 7)(torch.ones(2, 3, 4, 4)), torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.5}, "p must be a"),
        ({"block_size": 0}, "block_size must be a whole number ≥ 1"),
        ({"ramp_steps": -1}, "ramp_steps must be a whole number ≥ 0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message):
        DropBlock(**arguments)


def placed(model, shape, **arguments):
    plugin = DropBlock(**arguments)
    plugin.prepare(Setting(shape, (Task("", "classification", 3),)))
    model = plugin.transform_model(model)
    return [name.rpartition(".")[0] for name, part in model.named_modules() if isinstance(part, DropBlockLayer)]


class Mixed(nn.Module):
    """One activation for maps, for features and for squeezed maps, and another for maps whose features come last."""

    def __init__(self):
        super().__init__()
        self.conv, self.squeeze, self.act = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU()
        self.mix, self.gelu, self.hidden, self.head = nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.act(self.conv(x))
        x = x * self.act(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = self.gelu(self.mix(x.movedim(1, -1)))
        return self.head(self.act(self.hidden(x.mean((1, 2)))))


def test_where_it_acts():
    assert placed(CNN((1, 8, 8), 3, (4, 8), 16), (1, 8, 8)) == ["1", "4"]
    assert placed(ResNet18((1, 8, 8), 3), (1, 8, 8)) == [
        "relu", *(f"layer{stage}.{block}.relu" for stage in (1, 2, 3) for block in (0, 1)),
    ]  # fmt: skip
    assert placed(Mixed(), (1, 8, 8)) == ["act"]
    assert placed(models.googlenet(num_classes=3, aux_logits=False, init_weights=False), (3, 64, 64))[:2] == ["conv1", "conv2"]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MLP((1, 8, 8), 3), "no hidden activation in MLP on which regularizer/dropblock could act"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "no convolution in Sequential: looked for modules of type Conv2d"),
        (Functional(), r"regularizer/dropblock: Functional calls activations by functions.*such as nn.ReLU\(\)$"),
        (CNN((1, 8, 8), 3).eval(), "are in evaluation mode, in which nothing is dropped"),
    ],
)
def test_what_it_cannot_act_on_is_refused(model, message):
    with pytest.raises(RecipeError, match=message) as refused:
        placed(model, (1, 8, 8))
    assert "\n" not in str(refused.value)


# The ramp


def test_the_share_is_a_function_of_the_step():
    plugin = DropBlock(p=0.2, ramp_steps=4)
    assert [plugin.share(steps) for steps in range(7)] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2])
    assert [DropBlock(p=0.2).share(steps) for steps in (0, 9)] == [0.2, 0.2]


RAMP = ("regularizer.dropblock.ramp_steps=5", "regularizer.dropblock.block_size=3", "regularizer.dropblock.p=0.4")


def test_a_ramp_resumes_bit_for_bit(tmp_path):
    config = config_of(["regularizer/dropblock"], *RAMP)
    whole = fit(config, tmp_path / "whole", 6, copy_at=3)
    resumed = fit(config, tmp_path / "resumed", 6, resume=tmp_path / "whole" / "copy.ckpt")
    assert not same_bits(weights(whole), weights(resumed))
    for module in (whole, resumed):
        shares = [float(part.p) for part in module.model.modules() if isinstance(part, DropBlockLayer)]
        assert len(shares) == 3 and shares == pytest.approx([0.4] * 3)


def test_a_ramp_changes_the_training(tmp_path):
    trained = [
        weights(
            fit(
                config_of(["regularizer/dropblock"], *RAMP, f"regularizer.dropblock.ramp_steps={steps}"),
                tmp_path / str(steps),
                4,
            )
        )
        for steps in (0, 3, 1000000)
    ]
    plain = weights(fit(config_of([]), tmp_path / "plain", 4))
    assert same_bits(trained[0], trained[1])
    for name, value in plain.items():  # of a ramp that has hardly begun
        torch.testing.assert_close(trained[2][name], value)


def test_a_ramp_does_not_compile_anew():
    plugin = DropBlock(p=0.4, block_size=3, ramp_steps=6)
    _, graphs = compile_and_fit(CNN((1, 8, 8), 3, (4,), 8), plugin)
    assert graphs[0] >= 1 and graphs[-1] == graphs[0]
    assert [float(layer.p) for layer in plugin.layers] == pytest.approx([0.4])


def test_both_passes_of_sam_drop_the_same():
    """With a radius of nothing the second pass is the first: their losses are equal if their masks are."""
    wrapper = SAM(rho=1e-12)
    module, _ = compile_and_fit(CNN((1, 8, 8), 3, (4,), 8), DropBlock(p=0.5, block_size=3, ramp_steps=2), wrapper, steps=3)
    assert float(wrapper.wrapper.sharpness) == pytest.approx(0, abs=1e-6) and module.steps_done == 3
