"""An unknown metric to choose or to stop by is told before the first batch, and looking for it changes nothing."""

import random

import numpy as np
import pytest
import torch

from plugins.base import RecipeError, Task
from recipes.engine.checkpoint import load_checkpoint
from recipes.run import train
from recipes.run.monitor import metrics_of


def sure(extra, **further):
    """A technique with metrics of its own, which draws from everybody's generators."""

    class Sure(extra):
        option = "sure"

        def transform_batch(self, batch, module):
            torch.rand(3), np.random.rand(), random.random()
            return batch

        def measure(self, module, batch, outputs, split):
            return {"sure": (outputs[module.setting.tasks[0].name] + torch.rand(1)).amax(1)}

        def after_validation(self, module, metrics):
            return {"sure/steps": float(module.steps_done)}

    for name, value in further.items():
        setattr(Sure, name, value)
    return Sure


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.monitor=val/accuracy"], "trainer.monitor=val/accuracy is no metric of this run: there are val/acc, val/loss.*val/acc?"),
        (["trainer.monitor=val_loss"], "trainer.monitor=val_loss is no .*did you mean val/loss?"),
        (["trainer.monitor=acc"], "trainer.monitor=acc is no .*did you mean val/acc?"),
        (["trainer.monitor=train/loss"], "trainer.monitor=train/loss is no metric of the validation: there are val/acc, val/loss"),
        (["trainer.monitor=test/acc"], "trainer.monitor=test/acc is no metric of the validation"),
        (["trainer.monitor=step/loss"], "trainer.monitor=step/loss is no metric of the validation"),
        (["trainer.monitor=lr"], "trainer.monitor=lr is no metric of the validation: there are val/acc, val/loss"),
        (["+stopping=early", "stopping.monitor=val/los"], "stopping.monitor=val/los is no .*did you mean val/loss?"),
        (
            ["+stopping=early", "stopping.monitor=gap/loss", "+diagnostics=generalization_gap"],  # which looks later
            "stopping.monitor=gap/loss is no metric of this run: there are val/acc, val/loss",
        ),
        (["+stopping=early", "stopping.every_n_epochs=3", "stopping.monitor=val/f1"], "stopping.monitor=val/f1 is no"),
        (["+stopping=early", "stopping.every_n_steps=70", "stopping.monitor=val/f1"], "stopping.monitor=val/f1 is no"),
        (["+stopping=early", "trainer.monitor=val/acc"], "choose different best models"),
        (["+adversarial=fgsm", "trainer.monitor=val/acc_pdg"], "is no .*val/acc_pgd.* did you mean val/acc_pgd?"),
        (["trainer.monitor=val/digit/acc"], "there are val/acc, val/loss"),
    ],
)  # fmt: skip
def test_what_no_validation_has_is_refused_and_leaves_nothing(folder, words, message):
    with pytest.raises(RecipeError, match=message.replace("?", r"\?")) as error:
        folder.train(*words)
    assert "\n" not in str(error.value) and not any(folder.path.iterdir())


def test_a_technique_that_chooses_by_what_is_not_there_is_named(folder, with_plugin, extra):
    with_plugin(sure(extra, monitor="val/shure"))
    with pytest.raises(RecipeError, match=r"^test.sure.monitor=val/shure is no .*val/sure.* did you mean val/sure\?"):
        folder.train()
    assert not any(folder.path.iterdir())


def test_on_a_resume_too_and_nothing_is_changed(folder):
    folder.train("max_steps=4")
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    config = folder.result["config"]
    config = {**config, "max_steps": 9, "resume": str(folder.path), "trainer": {**config["trainer"], "monitor": "val/f1"}}
    with pytest.raises(RecipeError, match="trainer.monitor=val/f1 is no metric of this run"):
        train.train(config, folder.path, [])
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("monitor", ["val/sure", "sure/steps", "gap/acc"])  # of the first two no name tells the direction
def test_a_rehearsal_changes_nothing(folder, folders, with_plugin, extra, monkeypatch, monitor):
    """Not a bit, not a row, not a draw of anybody's."""
    with_plugin(sure(extra))
    words = (
        f"trainer.monitor={monitor}",
        "trainer.mode=min",
        "+averaging=ema",
        "+regularizer=dropout",
        "+augmentation=mixup",
        "+guard=nan_rollback",
    )
    words = (*words, "trainer.val_every_n_steps=4", "trainer.log_every_n_steps=3", "max_steps=14", "normalization=batch")
    folder.train(*words)
    whole = folders("whole")
    with monkeypatch.context() as patch:
        patch.setattr(train, "check_monitors", lambda *arguments: None)
        whole.train(*words)
    assert folder.result["monitor"] == monitor == whole.result["monitor"]
    assert {path.relative_to(folder.path) for path in folder.path.rglob("*")} == {
        path.relative_to(whole.path) for path in whole.path.rglob("*")
    }
    assert (folder.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    for name in ("best.ckpt", "last.ckpt"):
        first, second = (load_checkpoint(each.path / "checkpoints" / name) for each in (folder, whole))
        assert all(torch.equal(value, second["state_dict"][key]) for key, value in first["state_dict"].items())
        assert first["recipe"]["metrics"] == second["recipe"]["metrics"]


def test_generators_are_left_as_they_were(folder, with_plugin, extra, monkeypatch):
    with_plugin(sure(extra))
    states = []

    def look(original):
        def looked(*arguments):
            states.append((torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()))
            result = original(*arguments)
            states.append((torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()))
            return result

        return looked

    monkeypatch.setattr(train, "check_monitors", look(train.check_monitors))
    folder.train("trainer.monitor=val/sure", "trainer.mode=min", "max_steps=1")
    before, after = states
    assert before == after


def test_what_cannot_be_rehearsed_is_told_by_the_run_itself(folder, with_plugin, extra):
    """A technique that needs more samples than a rehearsal has."""

    class Needs(sure(extra)):
        def transform_batch(self, batch, module):
            if len(batch) < 20:
                raise ZeroDivisionError
            return batch

    with_plugin(Needs)
    assert folder.train("trainer.monitor=val/sure", "trainer.mode=min", "max_steps=3")["monitor"] == "val/sure"


def test_a_metric_that_the_validation_at_the_end_has_not_chooses_nothing(folder, with_plugin, extra):
    with_plugin(sure(extra))
    result = folder.train("trainer.monitor=sure/steps", "trainer.mode=max", "max_steps=3")
    assert result["status"] == "finished" and result["best_step"] == 3


@pytest.mark.parametrize("targets", ["letter", "size", "[letter,number]", "[letter,size]", "[letter,number,size]"])
def test_the_names_that_are_known_beforehand_are_those_that_are_measured(folder, tmp_path, targets):
    rng = np.random.default_rng()
    arrays = {"letter": np.arange(60) % 3, "number": np.arange(60) % 4, "size": rng.random(60)}
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(60, 4)), **arrays)
    several = ["+multitask=equal"] if "," in targets else []
    words = ("data=npz", f"data.path={tmp_path / 'own.npz'}", f"data.target={targets}", *several)
    result = folder.train(*words, "max_steps=1")
    kinds = {name: "regression" if name == "size" else "classification" for name in arrays}
    names = targets.strip("[]").split(",")
    tasks = [Task(name if several else "", kinds[name], 1) for name in names]
    assert {name for name in result["metrics"] if name.startswith("val/")} == set(metrics_of(tasks))
    if several:
        assert folder.resume("max_steps=2")["status"] == "finished"


def test_a_metric_of_torchmetrics_chooses_with_its_own_direction(folder):
    folder.train("+metric=[f1,calibration_error]", "trainer.monitor=val/calibration_error", "max_steps=4")
    result = folder.result
    assert result["monitor"] == "val/calibration_error" and result["directions"] == {"f1": "max", "calibration_error": "min"}
    assert {"val/f1", "test/f1", "test/calibration_error"} <= result["metrics"].keys()
    assert result["rulers"]["calibration_error"] == {"bins": 15, "norm": "l1"}
    with pytest.raises(RecipeError, match="trainer.mode=max: val/calibration_error is best at its min"):
        folder.train("+metric=calibration_error", "trainer.monitor=val/calibration_error", "trainer.mode=max")
