import math
import warnings

import pytest

from plugins.base import RecipeError, Refusal, Setting, Task
from plugins.stopping.early_retrain import EarlyRetrain
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, change
from recipes.run import train
from recipes.run.build import load_run
from recipes.run.evaluate import measure
from recipes.store.phase_results import is_phases
from tests.harness import build, config_of
from tests.plugins.stopping.scripted import (
    EVERY,
    WORDS,
    assert_goes_on,
    drawn,
    final,
    of_a_rank,
    same,
    scripted,
    what_phases_did,
)
from tests.ranks import on_ranks
from tests.recipes.conftest import Extra, run_config

RETRAIN = ("+stopping=early_retrain", *WORDS)


def test_the_second_phase_is_a_run_of_as_many_steps_on_all_data(folders, with_plugin, monkeypatch):
    """Algorithm 7.2, step by step: the weights are bit for bit those of a run on both splits that is told i*."""
    errors, i_star, stop = drawn()
    script = scripted(errors)
    with_plugin(script)
    result = folders("run").train(*RETRAIN)
    first, second = result["phase_results"]
    assert (first["name"], first["steps"], first["best_step"], first["stopped_early"]) == ("first", stop, i_star, True)
    assert (second["name"], second["begins"], second["steps"], second["stopped_early"]) == ("retrain", stop, i_star, False)
    assert result["steps"] == result["best_step"] == stop + i_star and result["phase_begins"] == [0, stop]
    assert same(script.ends[0], script.seen[0, i_star])  # θ*
    assert first["metrics"]["val/error"] == pytest.approx(errors[i_star // EVERY - 1])
    assert result["seconds"] == pytest.approx(first["seconds"] + second["seconds"], abs=0.01)
    train_samples, samples = 120, 120 + 144
    assert result["epochs"] == pytest.approx(stop / (train_samples // 32) + i_star / (samples // 32))
    rows = [int(row["step"]) for row in folders("run").rows if "val/loss" in row]
    assert rows == [*range(EVERY, stop + 1, EVERY), *range(stop + EVERY, stop + i_star + 1, EVERY)]

    with_plugin()
    build_data = train.build_data

    def together(config):
        data = build_data(config)
        data.setup()
        data.splits = {**data.splits, "train": data.splits["train"] + data.splits["val"]}
        return data

    monkeypatch.setattr(train, "build_data", together)
    plain = [word for word in RETRAIN if not word.lstrip("+").startswith(("stopping", "max_steps"))]
    folders("plain").train(*plain, f"max_steps={i_star}")
    assert same(final(folders("run"), "last"), final(folders("plain"), "last"))
    assert same(final(folders("run")), final(folders("run"), "last"))


class Telling(Extra):
    option, on_shards = "telling", True

    def on_train_start(self, trainer, module):
        self.events = [f"began phase {module.phase['index']}"]


def test_what_happened_in_the_first_phase_stays_in_the_result(folders, with_plugin):
    errors, _, _ = drawn()
    with_plugin(scripted(errors), Telling)
    result = folders("run").train(*RETRAIN)
    assert result["events"] == ["test/telling: began phase 0", "test/telling: began phase 1"]
    assert [phase["events"] for phase in result["phase_results"]] == [[event] for event in result["events"]]
    assert is_phases(result["phase_results"])


def test_what_is_measured_on_validation_samples_says_that_they_were_trained_on(folders, with_plugin, capsys):
    errors, _, stop = drawn()
    with_plugin(scripted(errors))
    result = folders("run").train(*RETRAIN, "trainer.progress=true", "+diagnostics=[calibration,generalization_gap]")
    assert [phase["trained_on_validation"] for phase in result["phase_results"]] == [False, True]
    assert result["rulers"]["val/loss"]["trained_on_validation"] and result["rulers"]["val/acc"] == {
        "trained_on_validation": True
    }
    assert "trained_on_validation" not in result["rulers"]["loss"]  # of the test
    others = {name for name in result["metrics"] if not name.startswith(("train/", "test/"))}
    assert others > {"val/loss", "val/acc", "calibration/ece", "gap/acc"} and all(
        result["rulers"][name]["trained_on_validation"] for name in others
    )
    assert result["rulers"]["gap/acc"] == {"mode": "evaluation", "trained_on_validation": True}
    shown = capsys.readouterr().out
    assert "phase 2, retrain: 264 training samples, those of the validation among them" in shown and "val, trained on" in shown
    assert "epoch 1  retrain  " in shown and f"phase 1  first: {stop} steps in" in shown


def test_whoever_uses_its_run_is_told_that_it_knows_the_validation_samples(folders, tmp_path, capsys):
    """A greedy soup, which chooses by them, refuses it; a soup of all members asks for none."""
    words = ("model=linear", "preprocessing=none", "data.train_samples=200", "optimizer.lr=0.1")
    stops = ("max_steps=9", "stopping.every_n_steps=2", "stopping.patience=1")
    folders("kept").train(*words, "max_steps=4")
    folders("retrained").train(*words, *stops, "+stopping=early_retrain")
    kept, retrained = tmp_path / "kept", tmp_path / "retrained"
    assert load_run(retrained).setting.trained_on_validation and not load_run(kept).setting.trained_on_validation
    soup = [*("+inference=soup", f"inference.members={retrained}", "inference.greedy=true")]
    with pytest.raises(RecipeError, match="retrained was trained on the validation samples too, by which members are chosen"):
        measure(kept, change(Catalogue(), run_config(kept), soup, ON_EVALUATION, "evaluation"), soup)
    measure(kept, change(Catalogue(), run_config(kept), soup[:2], ON_EVALUATION, "evaluation"), soup[:2])
    told = "was trained on the validation samples too: it knows those by which the best model is chosen here"
    for number, (place, using, line) in enumerate(
        [
            ("retrained", ("+distillation=logits", f"distillation.teacher={retrained}"), f"the teacher {retrained} {told}"),
            ("retrained", ("init=from_run", f"init.folder={retrained}"), f"{retrained} {told}"),
            (
                "retrained",
                ("+inference=ensemble", f"inference.members={retrained}"),
                f"member_0 is {retrained}, trained on the",
            ),
            ("kept", ("init=from_run", f"init.folder={kept}"), ""),
        ]
    ):
        capsys.readouterr()
        folders(f"{number}").train(*words, "max_steps=1", *using)
        shown = " ".join(capsys.readouterr().out.split())
        assert line in shown and ("validation samples too" in shown) == (place == "retrained")


@pytest.mark.parametrize("place", ["first", "end", "second"])
def test_a_run_that_is_stopped_goes_on_in_its_phase(folders, with_plugin, extra, place):
    errors, i_star, stop = drawn()
    at = {"first": stop // 2, "end": stop - 1, "second": stop + i_star // 2}[place]
    assert_goes_on((*RETRAIN, "trainer.log_every_n_steps=1"), at, folders, with_plugin, extra, scripted(errors))


def test_a_run_that_ends_by_its_time_has_no_second_phase_before_it_goes_on(folders, with_plugin, clock):
    errors, i_star, stop = drawn()
    with_plugin(scripted(errors))
    result = folders("run").train(*RETRAIN, f"max_time={stop - 2}s")
    assert result["phases"] == 1 and result["steps"] == stop - 2 and result["ended_by"] == "max_time"
    result = folders("run").resume(f"max_time={stop + 1}s")
    assert result["phases"] == 2 and result["steps"] == stop + 1 and result["ended_by"] == "max_time"
    result = folders("run").resume("max_time=null")
    assert result["steps"] == stop + i_star and result["ended_by"] is None and result["stopped_early"]


def test_a_training_that_was_never_evaluated_is_told(folder, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = folder.train("+stopping=early_retrain", "max_steps=3")
    assert "ended before its first evaluation, so there is no second phase" in caplog.text
    assert result["phases"] == 1 and result["steps"] == 3


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("averaging/swa", "averages from a share of all steps on"),
        ("distillation/self", "both ask for the next phase of the run"),
        ("inference/temperature", "what is found on the validation split would be found on samples"),
    ],
)
def test_what_cannot_be_right_is_refused(other, words):
    with pytest.raises(Refusal, match=words):
        build(config_of(["stopping/early_retrain", other]))


def test_another_early_stopping_is_refused(folder):
    with pytest.raises(
        RecipeError, match="cannot be combined with Lightning's EarlyStopping, which would end the second phase"
    ):
        folder.train("+stopping=early_retrain", "+callback=early_stopping", "max_steps=3")


def test_a_module_that_no_run_trains_has_no_second_phase():
    with pytest.raises(RecipeError, match="from Python take EarlyStopping, and train once more"):
        EarlyRetrain().prepare(Setting((4,), (Task("", "classification", 3),), training_inputs=lambda: iter([])))


@pytest.mark.slow
def test_two_processes_do_what_one_does_in_two_parts(folders, with_plugin, tmp_path):
    errors, i_star, stop = drawn()
    found = on_ranks(2, of_a_rank, tmp_path / "two", [*RETRAIN, "trainer=ddp"], errors)
    with_plugin(scripted(errors))
    halves = [word.replace("data.batch_size=32", "data.batch_size=16") for word in RETRAIN]
    one = what_phases_did(folders("one").train(*halves, "trainer.accumulate_grad_batches=2"))
    for phases in found:
        assert [phase["steps"] for phase in phases] == [stop, i_star]
        for phase, expected in zip(phases, one, strict=True):
            metrics = phase.pop("metrics")
            assert phase == {name: value for name, value in expected.items() if name != "metrics"}
            assert all(
                math.isclose(metrics[name], value, rel_tol=1e-3, abs_tol=0.02) for name, value in expected["metrics"].items()
            )
