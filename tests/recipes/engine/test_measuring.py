"""Torchmetrics objects of plugins: over all samples of a split, any batches and processes, by task, and as a monitor."""

import json
import math
from functools import partial

import lightning as L
import pytest
import torch
from sklearn.metrics import f1_score, r2_score, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassF1Score, MulticlassSpecificity

from plugins.base import Batch, Plugin, RecipeError, Setting, Task, declared_directions
from plugins.inference.mc_dropout import MCDropout
from plugins.loss.mse import MSE
from plugins.metric.auroc import AUROC
from plugins.metric.calibration_error import CalibrationError
from plugins.metric.f1 import F1Score
from plugins.metric.r2 import R2
from plugins.multitask.equal import EqualWeights
from recipes.engine.measuring import Measuring
from recipes.engine.module import RecipeModule
from recipes.run.build import build_plugins
from recipes.run.classes import instantiate
from tests.harness import CONF, config_of, fit, options
from tests.measured import built, drawn
from tests.ranks import on_ranks

EVERY = "trainer.val_every_n_steps=2"
CLASSES = Task("digit", "classification", 4)
NUMBER = Task("size", "regression", 2)


class Specificity(Plugin):
    """Somebody's own, of a class of torchmetrics that tells no direction."""

    stage = 420

    def metrics(self, task):
        return {"specificity": MulticlassSpecificity(task.outputs, average="macro")}


@pytest.mark.parametrize("plugins", [(F1Score(), AUROC(), R2())])
def test_each_task_that_fits_has_its_own(plugins):
    module = built(*plugins, EqualWeights(), tasks=(CLASSES, NUMBER))
    outputs, labels = drawn(4)
    y = torch.randn(200, 2)
    predicted = y + torch.randn(200, 2)
    measuring = Measuring(module)
    for rows in torch.arange(200).split(30):
        measuring.add(
            {"digit": outputs[rows], "size": predicted[rows]},
            Batch(outputs[rows], {}, {"digit": labels[rows], "size": y[rows]}),
        )
    expected = {
        "digit/f1": f1_score(labels, outputs.argmax(1), average="macro"),
        "digit/auroc": roc_auc_score(labels, outputs.softmax(1), multi_class="ovr"),
        "size/r2": r2_score(y, predicted),
    }
    assert measuring.compute() == pytest.approx(expected, abs=1e-5)
    assert declared_directions(module.plugins, module.setting.tasks) == {name: "max" for name in expected}


def test_softened_targets_and_labels_of_no_class_have_no_say():
    outputs, labels = drawn(4)
    odd = labels.where(torch.arange(200) % 5 > 0, -100)
    measuring = Measuring(built(F1Score(), tasks=(Task("", "classification", 4),)))
    measuring.add({"": outputs}, Batch(outputs, {"": torch.rand(200, 4).softmax(1)}, {"": odd}))
    kept = odd >= 0
    expected = f1_score(labels[kept], outputs[kept].argmax(1), average="macro")
    assert measuring.compute()["f1"] == pytest.approx(expected, abs=1e-6)


def every_metric():
    return [name.partition("/")[2] for name in options() if name.startswith("metric/")]


def of_split(rank, world, samples):
    """Each metric over the samples of a split that a process has, put together over all; and its direction."""
    torch.manual_seed(3)
    outputs, labels = drawn(7, samples)
    y = 50 + torch.randn(samples, 2)
    predicted, found = y + torch.randn(samples, 2), {}
    for task, output, target in ((Task("", "classification", 7), outputs, labels), (Task("", "regression", 2), predicted, y)):
        plugins = [plugin for name in every_metric() for plugin in built_plugin(name) if plugin.metrics(task)]
        measuring = Measuring(built(*plugins, tasks=(task,)))
        for rows in torch.arange(samples).split(11 if world == 1 else 4)[rank::world] or [torch.arange(0)]:
            measuring.add({"": output[rows]}, Batch(output[rows], {}, {"": target[rows]}))
        found |= measuring.compute()
    return found


def built_plugin(name):
    import yaml

    return [instantiate(yaml.safe_load((CONF / "metric" / f"{name}.yaml").read_text())[name], Plugin)]


def work(target, samples):
    found = of_split(torch.distributed.get_rank(), torch.distributed.get_world_size(), samples)
    target.with_name(f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("samples", [61, 4])  # of 4 the second process has none
def test_every_metric_is_the_same_over_any_number_of_processes_and_batches(samples, tmp_path):
    on_ranks(2, work, tmp_path / "found", samples)
    expected = of_split(0, 1, samples)
    assert set(expected) == set(every_metric())
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def test_every_metric_tells_its_direction_and_its_ruler():
    for name in every_metric():
        (plugin,) = built_plugin(name)
        task = Task("", "classification", 7) if plugin.metrics(Task("", "classification", 7)) else Task("", "regression", 1)
        assert declared_directions([plugin], [task]) == {name: "min" if name in ("calibration_error", "mae", "rmse") else "max"}
        module = built(plugin, tasks=(task,))
        Measuring(module)
        assert module.rulers[name] == {key: value for key, value in vars(plugin).items() if key not in ("setting",)}


@pytest.mark.parametrize("name", every_metric())
def test_every_metric_refuses_targets_for_which_it_means_nothing(name):
    (plugin,) = built_plugin(name)
    fits = "classification" if plugin.metrics(Task("", "classification", 7)) else "regression"
    other = Task("", "regression" if fits == "classification" else "classification", 7)
    with pytest.raises(RecipeError, match=rf"metric/{name} measures how .*type \+metric=") as refused:
        built(plugin, tasks=(other,), loss=nn.functional.mse_loss if other.kind == "regression" else None)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("plugin", [AUROC(), CalibrationError()])
def test_probabilities_of_what_are_no_logits_are_refused(plugin):
    with pytest.raises(RecipeError, match="makes probabilities of logits, which MSE does not train"):
        built(plugin, tasks=(Task("", "classification", 3),), loss=MSE())
    built(F1Score(), tasks=(Task("", "classification", 3),), loss=MSE())


def test_what_is_no_metric_or_gives_no_number_or_has_a_taken_name_is_refused_in_one_line():
    task = Task("", "classification", 3)

    def own(metrics):
        return type("Own", (Plugin,), {"stage": 420, "metrics": lambda self, task: metrics})()

    def measure(plugin):
        measuring = Measuring(built(plugin, tasks=(task,)))
        measuring.add({"": outputs}, Batch(outputs, {}, {"": labels}))
        return measuring.compute()

    outputs, labels = drawn(3)
    for metrics, message in [
        ({"f1": 3}, ": f1 must be a torchmetrics object, got int"),
        ({"acc": MulticlassF1Score(3)}, " measures acc, which is measured already"),
        ({"each": MulticlassF1Score(3, average="none")}, r": each must compute one number, got shape \(3,\)"),
        ({"wide": MulticlassF1Score(2)}, " cannot measure wide: "),
    ]:
        with pytest.raises(RecipeError, match=message) as refused:
            measure(own(metrics))
        assert "\n" not in str(refused.value)


def test_from_python_at_validation_and_test_with_somebodys_own():
    x, y = torch.randn(90, 6), torch.arange(90) % 3
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    module = RecipeModule(nn.Linear(6, 3), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[Specificity(), F1Score()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    expected = f1_score(y, module.model(x).argmax(1), average="macro")
    assert module.metrics["val/f1"] == pytest.approx(expected, abs=1e-6)
    trainer.test(module, loader, verbose=False)
    assert module.metrics["test/f1"] == pytest.approx(expected, abs=1e-6) and 0 < module.metrics["test/specificity"] < 1


def test_beside_mc_dropout_it_is_of_the_mean_probabilities():
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(64, 3))
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    plugin = MCDropout(samples=3)
    module.build([plugin, AUROC()], Setting((6,), (Task("", "classification", 3),)), devices=1)
    x, y = torch.randn(100, 6), torch.arange(100) % 3
    module.positions = range(100)
    measuring = Measuring(module)
    with torch.no_grad():
        measuring.add(module.evaluation._predictions(x), Batch(x, {}, {"": y}))
        p = plugin.predict(module, x)[""]
    assert measuring.compute()["auroc"] == pytest.approx(roc_auc_score(y, p.double(), multi_class="ovr"), abs=1e-5)


def test_nothing_of_the_training_knows_of_a_metric(tmp_path):
    plain = fit(config_of([], EVERY), tmp_path / "plain", 4)
    metrics = fit(config_of(["metric/f1", "metric/auroc"], EVERY), tmp_path / "metrics", 4)
    assert {name: metrics.metrics[name] for name in plain.metrics} == plain.metrics
    assert {"val/f1", "val/auroc"} == metrics.metrics.keys() - plain.metrics.keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), metrics.model.parameters(), strict=True))
    assert not math.isnan(metrics.metrics["val/auroc"]) and build_plugins(config_of(["metric/f1"]))
