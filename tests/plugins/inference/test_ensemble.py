from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from plugins.base import Batch, RecipeError, Refusal, Setting, Task
from plugins.inference._measured import NUMBERS, sums_of
from plugins.inference._members import expect_fits
from plugins.inference.ensemble import Ensemble, mean_of
from plugins.inference.temperature import Temperature
from plugins.loss.hinge import Hinge
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, change, read_run
from recipes.engine.module import RecipeModule
from recipes.run.build import build_data
from recipes.run.evaluate import evaluate
from recipes.run.predictor import load
from tests.measured import drawn, drawn_labels

TASKS = {kind: Task("", kind, 4) for kind in NUMBERS}


def built(*plugins, kind="classification", loss=None, **known):
    module = RecipeModule(
        nn.Linear(6, 4), loss or nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1), standardize_targets=False
    )
    setting = Setting((6,), (TASKS[kind],), **known)
    module.build(plugins, setting, devices=1)
    return module.eval()


def ensemble_of(members, own="own", kind="classification"):
    """An ensemble plugin in a module of the folder `own`, with members by folder."""
    plugin = Ensemble([*members])
    known = {"load_run": members.__getitem__, "find_runs": list, "folder": own}
    return plugin, built(plugin, kind=kind, **known)


def test_the_mean_decides_and_not_the_number_of_votes():
    p = [torch.tensor([[0.9, 0.1]]), torch.tensor([[0.4, 0.6]]), torch.tensor([[0.4, 0.6]])]
    torch.testing.assert_close(mean_of(p), torch.tensor([[1.7 / 3, 1.3 / 3]]))
    assert mean_of(p).argmax(1).item() == 0  # of lecture B: average the distributions, then choose the argmax


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_predicts_the_mean_of_members_and_itself(kind):
    members = {name: built(kind=kind) for name in "ab"}
    plugin, module = ensemble_of(members, kind=kind)
    x = torch.randn(20, 6)
    outputs = [each.model(x) for each in (*members.values(), module)]
    each = [out.softmax(1) if kind == "classification" else out for out in outputs]
    torch.testing.assert_close(plugin.predict(module, x)[""], torch.stack(each).mean(0))
    assert not any(parameter.requires_grad for member in members.values() for parameter in member.parameters())
    assert not any("member" in name for name, _ in module.named_parameters())


def test_a_calibrated_member_predicts_at_its_temperature_and_the_own_folder_counts_once():
    members = {"a": built(Temperature()), "own": built(Temperature())}
    for T, member in zip((0.5, 3.0), members.values(), strict=True):
        member.calibrated.put("inference/temperature", {"T": torch.tensor([T])})
    plugin, module = ensemble_of(members)
    x = torch.randn(20, 6)
    p = [(member.model(x) / T).softmax(1) for T, member in zip((0.5, 3.0), members.values(), strict=True)]
    torch.testing.assert_close(plugin.predict(module, x)[""], torch.stack(p).mean(0))
    assert not any(name.endswith("itself") for name in plugin.metrics(TASKS["classification"]))


def test_numbers_of_classes_equal_sklearn_and_torchmetrics():
    logits, labels = drawn(4)
    p = logits.double().softmax(1)
    unknown = torch.arange(200) % 9 == 0
    sums = sums_of(TASKS["classification"], p, labels.where(~unknown, 255)).unsqueeze(0)
    p, y = p[~unknown], labels[~unknown]
    expected = {
        "acc": accuracy_score(y, p.argmax(1)),
        "nll": log_loss(y, p.numpy(), labels=range(4)),
        "ece": multiclass_calibration_error(p, y, 4, n_bins=15),
    }
    found = {name: float(compute(sums)) for name, compute in NUMBERS["classification"].items()}
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)


def test_numbers_of_several_labels_and_of_a_regression_equal_sklearn():
    logits, there = drawn_labels(4)
    p = logits.double().sigmoid()
    sums = sums_of(TASKS["multilabel"], p, there).unsqueeze(0)
    flat, truth = p.flatten().numpy(), there.flatten().numpy()
    acc, nll = (float(compute(sums)) for compute in NUMBERS["multilabel"].values())
    assert acc == pytest.approx(accuracy_score(truth, flat > 0.5)) and nll == pytest.approx(log_loss(truth, flat))
    y, found = torch.randn(30, 4), torch.randn(30, 4)
    sums = sums_of(TASKS["regression"], found, y).unsqueeze(0)
    assert float(NUMBERS["regression"]["mse"](sums)) == pytest.approx(mean_squared_error(y, found))


def test_each_member_their_mean_and_the_whole_are_measured_over_batches():
    members = {name: built() for name in "ab"}
    plugin, module = ensemble_of(members)
    x, y = torch.randn(50, 6), torch.randint(4, (50,))
    metrics = plugin.metrics(TASKS["classification"])
    for rows in torch.arange(50).split(20):
        found = plugin.predict(module, x[rows])
        plugin.measure(module, Batch(x[rows], {"": y[rows]}, {"": y[rows]}), found, "val")
        for metric in metrics.values():
            metric.update(found[""], y[rows])
    each = [member.model(x).softmax(1).detach() for member in (*members.values(), module)]
    acc = [accuracy_score(y, p.argmax(1)) for p in each]
    nll = [log_loss(y, p.double().numpy(), labels=range(4)) for p in each]
    got = {name: float(metric.compute()) for name, metric in metrics.items()}
    names = ["member_0", "member_1", "itself", "members", "ensemble"]
    assert [*got] == [f"{what}_{name}" for what in ("acc", "nll", "ece") for name in names]
    whole = torch.stack(each).mean(0)
    assert [got[f"acc_{name}"] for name in names] == pytest.approx([*acc, np.mean(acc), accuracy_score(y, whole.argmax(1))])
    assert [got[f"nll_{name}"] for name in names] == pytest.approx(
        [*nll, np.mean(nll), log_loss(y, whole.double().numpy(), labels=range(4))], rel=1e-5
    )


def test_what_does_not_fit_is_refused_in_a_line():
    known = Setting((6,), (Task("", "classification", 4, ("a", "b", "c", "d")),), split="x")
    for other, message in [
        (
            replace(known, shape=(5,)),
            r"inference/ensemble: F was trained on samples of shape \(5,\), these have \(6,\): leave it out",
        ),
        (replace(known, tasks=(Task("", "classification", 5),)), "another target y: there 5 classes and here 4 classes"),
        (
            replace(known, tasks=(Task("", "classification", 4, ("a", "b", "d", "c")),)),
            r"there 4 classes \(a, b, d, c\) and here",
        ),
        (replace(known, tasks=(Task("", "regression", 4),)), "there 4 numbers and here 4 classes"),
        (replace(known, tasks=(Task("size", "classification", 4),)), "another target y: there is none and here 4 classes"),
        (replace(known, split="y"), "other data, or another split of them"),
    ]:
        with pytest.raises(RecipeError, match=message) as error:
            expect_fits("inference/ensemble", "F", other, known)
        assert "\n" not in str(error.value)
    expect_fits("inference/ensemble", "F", replace(known, split=None), known)  # an older run, which does not tell


def test_refuses():
    with pytest.raises(Refusal, match="needs trained runs: give inference.members a pattern"):
        built(Ensemble())
    with pytest.raises(RecipeError, match="give RecipeModule.build a Setting with load_run and find_runs"):
        built(Ensemble(["a"]))
    with pytest.raises(RecipeError, match="a was trained with Hinge, whose outputs are no probabilities"):
        ensemble_of({"a": built(loss=Hinge())})
    inner, outer = {"b": built()}, {}
    outer["a"] = lambda: ensemble_of(inner)[1]
    plugin = Ensemble(["a"])
    with pytest.raises(RecipeError, match=r"a has members of its own \(inference/ensemble\): name these in inference.members"):
        built(plugin, load_run=lambda name: outer[name](), find_runs=list)
    assert not Ensemble.loading


def measure(place, *words):
    """`python evaluate.py FOLDER WORDS`."""
    config = change(Catalogue(), read_run(Catalogue(), place), list(words), ON_EVALUATION, "evaluation")
    return evaluate(place, config, words)["metrics"]


def test_runs_of_a_sweep_are_evaluated_together(folders, tmp_path, capsys):
    words = (("seed=0", "+inference=temperature"), ("seed=1", "model.hidden=[8]"), ("seed=2",))
    runs = [folders(f"study/{number}").train("max_steps=30", *own) for number, own in enumerate(words)]
    places = sorted((tmp_path / "study").iterdir())
    found = measure(places[0], "+inference=ensemble", f"inference.members='{tmp_path}/study/*'")
    shown = capsys.readouterr().out
    assert f"inference/ensemble: member_2 is {places[2]}\n" in shown and "acc_ensemble" in shown
    assert [found[f"test/acc_member_{number}"] for number in range(3)] == pytest.approx(
        [run["metrics"]["test/acc"] for run in runs]
    )
    assert [found[f"test/nll_member_{number}"] for number in range(3)] == pytest.approx(
        [run["metrics"]["test/loss"] for run in runs], rel=1e-5
    )
    assert "test/acc_itself" not in found
    assert found["test/ece_members"] == pytest.approx(np.mean([found[f"test/ece_member_{number}"] for number in range(3)]))
    again = measure(places[2], "+inference=ensemble", f"inference.members={tmp_path}/study")
    assert again == pytest.approx(found)  # whichever of them is asked, and however they are named
    p, data = load(*places).predict_data(elsewhere=False).of().double(), build_data(read_run(Catalogue(), places[0]))
    data.setup()
    y = data.splits["test"].labels[""]
    whole = {
        "acc": accuracy_score(y, p.argmax(1)),
        "nll": log_loss(y, p),
        "ece": float(multiclass_calibration_error(p, y, 10, n_bins=15)),
    }
    assert {name: found[f"test/{name}_ensemble"] for name in whole} == pytest.approx(whole, rel=1e-4)
    assert (found["test/acc"], found["test/loss"]) == pytest.approx((whole["acc"], whole["nll"]), rel=1e-4)
    folders("study/3").train("max_steps=5", "data.split_seed=1")
    with pytest.raises(RecipeError, match=r"study/3 was trained on other data, or another split of them"):
        measure(places[0], "+inference=ensemble", f"inference.members='{tmp_path}/study/*'")


def test_a_run_that_is_trained_is_one_of_its_members_and_is_evaluated_again(folders, tmp_path):
    folders("first").train("max_steps=20")
    second = folders("second")
    result = second.train("max_steps=20", "seed=1", "+inference=ensemble", f"inference.members={tmp_path / 'first'}")
    tested = {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
    assert {"test/acc_member_0", "test/acc_itself", "test/ece_members", "test/nll_ensemble"} <= tested.keys()
    assert measure(second.path) == tested and Path(second.path / "result.json").exists()
