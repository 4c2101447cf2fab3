from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from plugins.base import Batch, RecipeError, Setting, Task
from plugins.inference.mc_dropout import MCDropout
from plugins.inference.temperature import PLACES, Temperature, _known, best_temperature
from recipes.engine.module import RecipeModule
from recipes.run.build import load_module
from tests.harness import config_of, fit
from tests.measured import drawn

EVERY = "trainer.val_every_n_steps=2"


@pytest.mark.parametrize("scale", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_equals_scipy(classes, scale):
    logits, labels = drawn(classes)
    logits = scale * logits

    def loss(log_t):
        return float(nn.functional.cross_entropy(logits.double() / np.exp(log_t), labels))

    found = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    assert float(best_temperature(logits, labels).log()) == pytest.approx(found.x, abs=1e-4)


def test_stays_in_bounds_and_is_1_where_nothing_is_known():
    labels = torch.arange(20) % 4
    assert float(best_temperature(nn.functional.one_hot(labels, 4).float(), labels)) == pytest.approx(0.01)
    assert float(best_temperature(-nn.functional.one_hot(labels, 4).float(), labels)) == pytest.approx(100)
    assert float(best_temperature(torch.full((20, 4), torch.nan), labels)) == 1
    assert float(best_temperature(torch.randn(0, 4), labels[:0])) == 1


def test_is_that_of_the_validation_split_and_is_evaluated_and_kept(tmp_path):
    config = config_of(["inference/temperature", "metric/calibration_error"], EVERY)
    module = fit(config, tmp_path, 6)
    x, y = next(iter(module.trainer.val_dataloaders.__class__(module.trainer.val_dataloaders.split, 10_000)))
    with torch.no_grad():
        logits = module.eval().outputs(x.float())[""].double()
    T = module.calibrated.of("inference/temperature")["T"]
    assert float(T) == pytest.approx(float(best_temperature(logits, y[""])), rel=1e-4) and float(T) != 1
    assert module.metrics["temperature/T"] == pytest.approx(float(T))
    assert module.metrics["val/loss"] == pytest.approx(float(nn.functional.cross_entropy(logits / T, y[""])), rel=1e-4)
    loaded = load_module(config, tmp_path / "checkpoints" / "best.ckpt")
    assert torch.equal(loaded.calibrated.of("inference/temperature")["T"], T)
    torch.testing.assert_close(
        loaded.plugins[-2].predict(loaded, x.float())[""].double(), (logits / T).softmax(1), atol=1e-3, rtol=0
    )
    plain = load_module(config_of([]), tmp_path / "checkpoints" / "best.ckpt")  # whose evaluation takes no temperature
    assert torch.equal(plain.outputs(x.float())[""], loaded.outputs(x.float())[""])


def test_training_stays_as_it_is(tmp_path):
    plain, scaled = (
        fit(config_of([], EVERY), tmp_path / "plain", 4),
        fit(config_of(["inference/temperature"], EVERY), tmp_path / "t", 4),
    )
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), scaled.model.parameters(), strict=True))
    assert plain.metrics["val/acc"] == scaled.metrics["val/acc"] and plain.metrics["val/loss"] >= scaled.metrics["val/loss"]


def built(*plugins, tasks):
    module = RecipeModule(nn.Linear(6, tasks[0].outputs), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build(plugins, Setting((6,), tasks), devices=1)
    return module


def test_each_task_has_its_own():
    tasks = (Task("a", "classification", 3), Task("b", "classification", 4))
    plugin, module = Temperature(), type("Module", (), {})()
    z = {"a": drawn(3), "b": drawn(4)}
    module.setting = Setting((6,), tasks)
    module.outputs = lambda x: {name: logits[x] for name, (logits, _) in z.items()}
    batches = (Batch(rows, {}, {name: y[rows] for name, (_, y) in z.items()}) for rows in torch.arange(200).split(64))
    assert torch.allclose(
        plugin.calibrate(module, batches)["T"], torch.stack([best_temperature(*z[name]) for name in z]).float()
    )


def test_of_a_class_map_of_many_places_some_are_enough():
    """The whole logits of a validation split of large pictures fill no memory; of small ones all places count."""
    plugin, module = Temperature(), type("Module", (), {})()
    module.setting = Setting((1, 96, 96), (Task("", "classification", 3, shape=(96, 96)),))
    logits, labels = drawn(3, 4 * 96 * 96)
    logits, labels = logits.view(4, 96, 96, 3).movedim(3, 1), labels.view(4, 96, 96)
    labels[:, 0] = -100
    module.outputs = lambda x: {"": logits[x]}
    for side in (96, 40):
        z, y = logits[:, :, :side, :side], labels[:, :side, :side]
        module.outputs = lambda x, z=z: {"": z[x]}
        batches = (Batch(rows, {}, {"": y[rows]}) for rows in torch.arange(4).split(3))
        known = y != -100
        every = float(best_temperature(z.movedim(1, 3)[known], y[known]))
        assert float(plugin.calibrate(module, batches)["T"]) == pytest.approx(every, rel=0.15 if side == 96 else 1e-5)
    kept = [len(_known(module.setting.tasks[0], logits[rows], labels[rows])[1]) for rows in torch.arange(4).split(1)]
    assert len({*kept}) == 1 and 0.9 * PLACES < kept[0] <= PLACES


def test_refuses():
    with pytest.raises(RecipeError, match="scales logits of classes, and there are none"):
        built(Temperature(), tasks=(Task("", "regression", 2),))
    with pytest.raises(RecipeError, match="both define predict"):
        built_both()
    module = built(plugin := Temperature(), tasks=(Task("", "classification", 3),))
    with pytest.raises(RecipeError, match=r"this one was trained without: train with \+inference=temperature"):
        plugin.predict(module, torch.randn(3, 6))


def built_both():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build([MCDropout(), Temperature()], Setting((6,), (Task("", "classification", 3),)), devices=1)
