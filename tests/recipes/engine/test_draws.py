"""Layers that a technique puts into a model draw their weights from a stream of its own: a function of seed and option."""

import warnings
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import Plugin, Stage
from plugins.init.kaiming_normal import KaimingNormalInit
from plugins.normalization.batch import BatchNormalization
from plugins.regularizer.dropout import Dropout
from recipes.engine.module import RecipeModule
from tests.harness import build, config_of


class Adapter(nn.Module):
    """A low-rank change of a layer."""

    def __init__(self, layer, rank=2):
        super().__init__()
        self.layer = layer
        self.down, self.up = nn.Linear(layer.in_features, rank), nn.Linear(rank, layer.out_features)
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


class LowRank(Plugin):
    """Draws from the global generator, as torch's layers do."""

    stage, group, option = Stage.LAYERS, "test", "low_rank"

    def transform_model(self, model):
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear):
                model.set_submodule(name, Adapter(layer))
        return model


class Draws(Plugin):
    """Another one, before it or after it."""

    group = "test"

    def __init__(self, stage, count):
        self.stage, self.count = stage, count  # type: ignore[misc]

    @property
    def option(self):
        return f"draws_{self.count}_{int(self.stage)}"

    def transform_model(self, model):
        torch.randn(self.count)
        return model


def adapters(module):
    return {
        name: value.clone()
        for name, value in module.model.state_dict().items()
        if name.rpartition(".")[0].endswith(("down", "up")) or name.endswith("scale")
    }


def same(first, second):
    assert first.keys() == second.keys() and first
    return all(torch.equal(first[name], second[name]) for name in first)


OTHERS = {
    "draws before": lambda: [Draws(Stage.NORMALIZATION, 5)],
    "draws after": lambda: [Draws(Stage.INIT, 7)],
    "both": lambda: [Draws(Stage.NORMALIZATION, 3), Draws(Stage.INIT, 4)],
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_its_weights_are_the_same_whatever_else_is_chosen(name):
    alone = build(config_of([]), [LowRank()])
    beside = build(config_of([]), [LowRank(), *OTHERS[name]()])
    assert same(adapters(alone), adapters(beside))
    assert same(dict(alone.model.state_dict()), dict(beside.model.state_dict()))


def test_its_weights_depend_on_the_seed_and_on_nothing_drawn_before():
    first = build(config_of([]), [LowRank()])
    torch.manual_seed(123)
    torch.randn(99)
    state = torch.get_rng_state()
    second = build(config_of([]), [LowRank()])
    assert torch.equal(torch.get_rng_state(), state)  # nor are the draws of others moved
    other = build(config_of([], "seed=1"), [LowRank()])
    assert same(adapters(first), adapters(second)) and not same(adapters(first), adapters(other))


@pytest.mark.parametrize(
    "others", [[], [Dropout(0.5)], [BatchNormalization(), KaimingNormalInit()]], ids=["alone", "one", "two"]
)
def test_from_python_too(others):
    """With a model and a Trainer of one's own; the order of the data does not change either."""

    def fitted(*plugins):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        samples = TensorDataset(torch.randn(32, 6), torch.randint(3, (32,)))
        order = []

        class Look(L.Callback):
            def on_fit_start(self, trainer, pl_module):
                self.weights = adapters(pl_module)

            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                order.append(batch[0].sum().item())

        look = Look()
        module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.0), seed=4)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[look, *plugins], **quiet)
            trainer.fit(module, DataLoader(samples, 8, shuffle=True))
        return look.weights, order

    class First(LowRank):
        stage = Stage.NORMALIZATION

    weights, order = fitted(First())
    beside, same_order = fitted(First(), *others)
    if not any(isinstance(other, KaimingNormalInit) for other in others):  # which is there to draw all of them anew
        assert same(weights, beside)
    assert order == same_order
