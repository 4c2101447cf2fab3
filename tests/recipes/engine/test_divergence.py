"""A run whose loss or weights become NaN or infinite ends at once, keeps what was best, and says so everywhere."""

import json
import math

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import Diverged
from plugins.errors import RecipeError
from plugins.guard.nan_rollback import NaNRollback
from plugins.loss.by_task import LossByTask
from plugins.stopping.early import EarlyStopping
from recipes.cli.start import exit_code, score_of
from recipes.compare.present import present
from recipes.compare.runs import read
from recipes.config.catalogue import Catalogue
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.divergence import all_finite
from recipes.engine.module import RecipeModule
from recipes.launch.job import Job, summary
from recipes.store.claim import claim
from tests.command import command

BAD = [math.nan, math.inf, -math.inf]


def poison(extra, at, value=math.nan, once=False):
    """A technique that makes a weight bad after a step."""

    class Poison(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == at or (module.steps_done > at and not once):
                with torch.no_grad():
                    next(module.model.parameters()).flatten()[0] = value

    Poison.option = "poison"
    return Poison


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_bad_number_is_found_and_no_large_one(bad, dtype):
    fine = [torch.full((3, 3), torch.finfo(dtype).max, dtype=dtype), torch.zeros(0), torch.tensor(2**40), torch.randn(5)]
    assert all_finite(fine) and all_finite([])
    for place in range(4):
        spoilt = torch.zeros(4, dtype=dtype)
        spoilt[place] = bad
        assert not all_finite([*fine, spoilt])


# ------------------------------------------------------------------ a run


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("words", "steps"), [(["max_epochs=3"], 80), (["max_steps=60", "trainer.log_every_n_steps=7"], 56)])
def test_the_best_of_before_is_kept_and_nothing_is_trained_on(folder, with_plugin, extra, bad, words, steps, capsys):
    with_plugin(poison(extra, 55, bad))
    result = folder.train(*words, "trainer.val_every_n_steps=20", "trainer.save_every_n_steps=10")
    assert result["status"] == "diverged" and result["steps"] <= min(steps, 60) and exit_code(result) == 1
    assert math.isnan(score_of(result)) and "test/loss" not in result["metrics"]
    kept = {name: load_checkpoint(folder.path / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")}
    assert all(weight.isfinite().all() for each in kept.values() for weight in each["state_dict"].values())
    assert result["best_step"] == kept["best"]["global_step"] <= 40 and kept["last"]["global_step"] == 50
    assert result["metrics"]["val/acc"] == pytest.approx(kept["best"]["recipe"]["metrics"]["val/acc"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: the training diverged,")
    assert all(said in error for said in ("a lower optimizer.lr (it is 0.1)", "+clipping=norm", "+guard=nan_rollback"))
    written = json.loads((folder.path / "result.json").read_text())
    assert written["status"] == "diverged" and written["error"] in error


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.lr=1e30"],
        ["optimizer.lr=1e30", "max_steps=3"],  # shorter than all intervals
        ["optimizer.lr=1e30", "trainer.accumulate_grad_batches=2"],
        ["optimizer.lr=1e30", "+averaging=ema", "+wrapper=sam"],
    ],
)
def test_too_large_a_rate(folder, words):
    result = folder.train("max_steps=40", *words)
    assert result["status"] == "diverged" and not (folder.path / "checkpoints" / "best.ckpt").exists()
    assert "test/loss" not in result["metrics"]


def test_a_loss_that_is_nan_with_good_weights(folder, with_plugin, extra):
    class Bad(extra):
        def penalty(self, module, batch, outputs):
            return torch.tensor(math.nan)

    with_plugin(Bad)
    result = folder.train("max_steps=20", "trainer.log_every_n_steps=4")
    assert result["status"] == "diverged" and result["steps"] == 4


def test_resume_says_what_to_do_and_changes_nothing(folder, with_plugin, extra):
    with_plugin(poison(extra, 30))
    folder.train("max_steps=60", "trainer.save_every_n_steps=10", "trainer.val_every_n_steps=10", "optimizer.lr=0.2")
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(
        RecipeError, match=r"has diverged at step 30 and would diverge again.*max_steps=60.* optimizer.lr=0.02$"
    ):
        folder.resume()
    with pytest.raises(RecipeError, match="holds a run that has diverged.*overwrite=true"):
        claim(folder.path, folder.result["command"])
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


# ------------------------------------------------------------------ techniques that deal with it


def test_a_guard_wins(folder, with_plugin, extra):
    with_plugin(poison(extra, 20, once=True))  # before the guard looks
    result = folder.train("max_steps=40", "trainer.log_every_n_steps=1", "+guard=nan_rollback")
    assert result["status"] == "diverged"  # diagnostics act behind the guard, which saw a good step


def test_a_guard_that_undoes_a_step_lets_the_run_go_on(folder, with_plugin, extra):
    from plugins.base import Stage

    poisoned = poison(extra, 20, once=True)
    poisoned.stage = Stage.PROJECTION
    with_plugin(poisoned)
    result = folder.train("max_steps=40", "trainer.log_every_n_steps=1", "+guard=nan_rollback")
    assert result["status"] == "finished" and result["steps"] == 40 and math.isfinite(result["metrics"]["test/loss"])


def test_a_guard_that_gives_up_has_diverged(folder, with_plugin, extra):
    from plugins.base import Stage

    poisoned = poison(extra, 20)
    poisoned.stage = Stage.PROJECTION
    with_plugin(poisoned)
    result = folder.train("max_steps=40", "+guard=nan_rollback", "guard.nan_rollback.max_rollbacks=2")
    assert result["status"] == "diverged" and "after 2 rollbacks" in result["error"] and exit_code(result) == 1
    (again, last) = result["events"][:2], result["events"][-1]
    assert all(event.startswith("guard/nan_rollback: ") and "back to the state of step 0" in event for event in again)
    assert last.endswith("at step 22: given up") and folder.result["events"] == result["events"]


def test_a_rate_that_is_far_too_large_is_survived(folder, capsys):
    words = ("guard.divergence.patience=4", "guard.divergence.lr_factor=1e-4", "guard.divergence.every_n_steps=10")
    result = folder.train("max_steps=300", "optimizer.lr=1e3", "+guard=[nan_rollback,divergence]", *words)
    assert result["status"] == "finished" and result["metrics"]["test/acc"] > 0.8
    assert result["events"] and "back to the state of step 0, the learning rate 1000 times 0.0001" in result["events"][0]
    assert f"happened {result['events'][0]}\n" in capsys.readouterr().out


def test_early_stopping_goes_back_to_its_best_weights(folder, with_plugin, extra, caplog):
    with_plugin(poison(extra, 50))
    result = folder.train("max_steps=200", "+stopping=early", "stopping.every_n_steps=20")
    assert result["status"] == "finished" and result["stopped_early"] and result["steps"] <= 60
    assert math.isfinite(result["metrics"]["test/loss"]) and "the training ends with the best weights so far" in caplog.text


def test_early_stopping_has_nothing_to_go_back_to(folder):
    assert folder.train("max_steps=200", "+stopping=early", "optimizer.lr=1e30")["status"] == "diverged"


# ------------------------------------------------------------------ from Python


@pytest.mark.parametrize("plugins", [(), (NaNRollback(max_rollbacks=0),), (EarlyStopping(),)])
def test_a_trainer_raises_in_one_line(plugins):
    x, y = torch.randn(16, 4), torch.arange(16) % 2
    module = RecipeModule(nn.Linear(4, 2), LossByTask(), lambda p: torch.optim.SGD(p, math.inf), log_every_n_steps=2)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    with pytest.raises(Diverged) as error:
        L.Trainer(accelerator="cpu", max_steps=8, callbacks=list(plugins), **quiet).fit(module, loader, loader)
    assert "\n" not in str(error.value) and isinstance(error.value, RecipeError)


# ------------------------------------------------------------------ sweeps and comparisons


def test_a_comparison_shows_it_and_averages_nothing_over_it(folders, with_plugin, extra, tmp_path, capsys):
    for seed in (0, 1):
        folders(f"runs/good{seed}").train(f"seed={seed}", "max_steps=30")
        folders(f"runs/bad{seed}").train(f"seed={seed}", "max_steps=30", f"optimizer.lr={1e30 if seed else 0.05}")
        folders(f"runs/worse{seed}").train(f"seed={seed}", "max_steps=30", "optimizer.lr=1e30", "model.hidden=[8]")
    runs = [read(folder, Catalogue()) for folder in sorted((tmp_path / "runs").iterdir())]
    assert [run.status for run in runs].count("diverged") == 3
    capsys.readouterr()
    (comparison,) = present([tmp_path / "runs"])
    shown = capsys.readouterr().out
    assert "diverged" in shown and "so there is no mean" in shown and "not finished" not in shown
    assert (tmp_path / "runs" / "compare.csv").exists() and (tmp_path / "runs" / "report.html").exists()
    groups = {tuple(run.status for run in group.runs): group.metric("test/acc") for group in comparison.groups}
    assert all(math.isfinite(value) for value in groups["finished", "finished"].values())
    assert all(math.isnan(value) for value in groups["diverged", "diverged"].values())


def test_nothing_but_diverged_runs_is_no_comparison(folder):
    folder.train("max_steps=4", "optimizer.lr=1e30")
    with pytest.raises(RecipeError, match=r"none of 1 runs is finished \(1 diverged\).*the training diverged"):
        present([folder.path])


def test_a_job_of_a_sweep_that_diverged_is_no_failure_and_has_no_score(folder, tmp_path):
    result = folder.train("max_steps=4", "optimizer.lr=1e30")
    job = Job(0, folder.path, [], "", result=result)
    assert job.diverged and job.score is None and summary(job) == f"diverged at step {result['steps']}"
    assert not Job(0, folder.path, [], "", result={**result, "status": "finished"}).diverged


@pytest.mark.slow
def test_a_sweep_goes_on_with_the_others_and_counts_it(tmp_path):
    words = ("-m", "optimizer.lr=0.1,1e30", "max_steps=4", "logger=[]", f"hydra.sweep.dir={tmp_path / 's'}")
    for start in (words, (f"sweep={tmp_path / 's'}",)):  # going on runs neither again
        done = command("train.py", *start, cwd=tmp_path, forked=True)
        assert done.returncode == 0 and "1 of 2 jobs diverged" in done.stderr and "failed" not in done.stderr
        assert "diverged at step" in done.stdout
    alone = ("-m", "optimizer.lr=1e29,1e30", "max_steps=4", "logger=[]", f"hydra.sweep.dir={tmp_path / 'bad'}")
    assert command("train.py", *alone, cwd=tmp_path, forked=True).returncode == 1
