"""Inputs that are several by name, such as tokens and their mask: from somebody's loader and from ours, whole and in pieces."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from plugins.adversarial.fgsm import FGSM
from plugins.augmentation.cutout import Cutout
from plugins.augmentation.mixup import Mixup
from plugins.averaging.swa import SWA
from plugins.base import Plugin, RecipeError, Stage
from plugins.inference.mc_dropout import MCDropout
from plugins.inference.temperature import Temperature
from plugins.inputs import Entry, blank, described, fits, from_plain, joined, plain, shape_of
from plugins.loss.by_task import LossByTask
from plugins.preprocessing.standardize import StandardizeInputs
from plugins.regularizer.class_weights import ClassWeights
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.l2 import L2Penalty
from plugins.regularizer.label_smoothing import LabelSmoothing
from recipes.check.forms import tokens
from recipes.engine.module import RecipeModule
from recipes.models.transformer import TransformerModel
from tests.forms import Pairs, as_tensors

SHAPE = {"tokens": Entry((7,), "int64", 10, 0), "mask": Entry((7,), "bool")}


def transformer(**options):
    torch.manual_seed(0)
    return TransformerModel(SHAPE, 3, **{"width": 8, "layers": 1, "heads": 2, "hidden": 8, **options})


def fit(*plugins, model=None, data=None, steps=3, parts=1, batch=30, **options):
    inputs, y = data or as_tensors(tokens())
    loader = DataLoader(Pairs(inputs, y), batch_size=batch)
    model = model or transformer()
    module = RecipeModule(model, LossByTask(), lambda groups: torch.optim.SGD(groups, 0.3), parts=parts)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(plugins),
        **options,
    )
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    return module


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("parts", [1, 3])
def test_a_loader_of_a_dict_trains_as_written_out(parts):
    model, (inputs, y) = transformer(), as_tensors(tokens())
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for index in torch.arange(90).split(30):
        optimizer.zero_grad()
        functional.cross_entropy(model({name: value[index] for name, value in inputs.items()}), y[index]).backward()
        optimizer.step()
    module = fit(parts=parts)
    torch.testing.assert_close(weights(module.model), weights(model), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        outputs = module.model(inputs)
    assert module.metrics["test/loss"] == pytest.approx(float(functional.cross_entropy(outputs, y)), rel=1e-5)
    assert module.metrics["test/acc"] == pytest.approx(float((outputs.argmax(1) == y).float().mean()))
    assert module.setting.shape == {"tokens": Entry((7,), "int64"), "mask": Entry((7,), "bool")}


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_whole_numbers_stay_such_in_every_precision(precision):
    seen = {}

    class Watched(TransformerModel):
        def forward(self, inputs):
            seen.update({name: value.dtype for name, value in inputs.items()})
            return super().forward(inputs)

    model = Watched(SHAPE, 3, width=8, layers=1, heads=2, hidden=8)
    assert fit(model=model, precision=precision).steps_done == 3
    assert seen == {"tokens": torch.int64, "mask": torch.bool}


def test_floats_and_bytes_by_name():
    seen = {}

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4 + 16, 3)

        def forward(self, inputs):
            seen.update(inputs)
            return self.layer(torch.cat([inputs["numbers"], inputs["image"].flatten(1)], 1))

    numbers, image = torch.randn(40, 4).double(), torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    fit(model=Both(), data=({"numbers": numbers, "image": image}, torch.arange(40) % 3), batch=40)
    assert torch.equal(seen["image"], image / 255) and torch.equal(seen["numbers"], numbers.float())


@pytest.mark.parametrize(
    "plugins",
    [
        (Dropout(0.3), MCDropout(samples=2)),
        (Temperature(), LabelSmoothing(0.1), ClassWeights()),
        (SWA(), L2Penalty(0.01)),
    ],
    ids=lambda plugins: type(plugins[0]).__name__,
)
def test_techniques_that_see_no_numbers_go_on(plugins):
    module = fit(*plugins)
    assert 0 <= module.metrics["test/acc"] <= 1 and torch.isfinite(weights(module.model)).all()


@pytest.mark.parametrize("plugin", [FGSM(), Cutout(), Mixup(), StandardizeInputs()], ids=lambda plugin: plugin.option)
def test_techniques_that_change_numbers_are_refused(plugin):
    with pytest.raises(
        RecipeError, match=rf"{plugin.option} takes inputs that are (one tensor of )?numbers, and .*\(tokens, mask\)"
    ) as refused:
        fit(plugin)
    assert "\n" not in str(refused.value)
    words, y = as_tensors(tokens())
    model = nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(28, 3))
    loader = DataLoader(torch.utils.data.TensorDataset(words["tokens"], y), batch_size=30)
    module = RecipeModule(model, LossByTask(), lambda groups: torch.optim.SGD(groups, 0.3))
    trainer = L.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[plugin])
    with pytest.raises(RecipeError, match="whole numbers that stand for something|needs images"):
        trainer.fit(module, loader)


def test_a_technique_of_somebodys_own_is_refused_until_it_says_that_it_is_right():
    class Own(Plugin):
        stage, group, option = Stage.COLOUR, "augmentation", "own"

        def transform_batch(self, batch, module):
            return batch

    with pytest.raises(RecipeError, match="augmentation/own takes inputs that are one tensor"):
        fit(Own())
    fit(type("Own", (Own,), {"on_named_inputs": True})(), steps=1)


def test_inputs_of_different_lengths_are_refused():
    class Odd(Pairs):
        def __getitems__(self, index):
            return index

    def collate(index):
        inputs, y = as_tensors(tokens())
        return {"tokens": inputs["tokens"][index], "mask": inputs["mask"][index[:3]]}, y[index]

    loader = DataLoader(Odd(*as_tensors(tokens())), batch_size=30, collate_fn=collate)
    module = RecipeModule(transformer(), LossByTask(), lambda groups: torch.optim.SGD(groups, 0.3))
    with pytest.raises(RecipeError, match=r"a loader must yield \(inputs, targets\)"):
        L.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False).fit(module, loader)


def test_shapes():
    x = {"a": torch.tensor([[3, 9]]), "b": torch.zeros(1, 2, 3), "c": torch.tensor([[True]])}
    shape = shape_of(x)
    assert shape == {"a": Entry((2,), "int64", 9, 3), "b": Entry((2, 3), "float32"), "c": Entry((1,), "bool")}
    assert from_plain(plain(shape)) == shape and from_plain(plain((1, 8))) == (1, 8)
    nothing = blank(shape, 2, dtype=torch.float64)
    assert {name: (tuple(value.shape), value.dtype) for name, value in nothing.items()} == {
        "a": ((2, 2), torch.int64),
        "b": ((2, 2, 3), torch.float64),
        "c": ((2, 1), torch.bool),
    }
    assert nothing["c"].all() and (nothing["a"] == 1).all()
    larger = joined(shape, [{**shape, "a": Entry((2,), "int64", 12, 0)}])
    assert larger["a"] == Entry((2,), "int64", 12, 0)
    assert fits(shape, larger) and not fits(larger, shape) and not fits({"a": shape["a"]}, shape) and fits((3,), (3,))
    steps, others = ({"x": Entry((places, 4), "float32"), "mask": Entry((places,), "bool")} for places in (6, 9))
    assert fits(others, steps, any_length=True) and not fits(others, steps)
    torn = {**others, "mask": steps["mask"]}
    wider = {**others, "x": Entry((9, 5), "float32")}
    assert not fits(torn, steps, any_length=True) and not fits(wider, steps, any_length=True)
    assert described(shape).startswith("a (2,) of int64 from 3 to 9, b (2, 3) of float32")
