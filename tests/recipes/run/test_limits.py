"""Limits in steps and epochs, raised, lowered and switched on resume."""

import itertools
import shlex

import pytest
import torch

from plugins.augmentation.mixup import Mixup
from plugins.averaging.swa import SWA
from plugins.base import Phase, RecipeError
from plugins.curriculum.layer_freezing import LayerFreezing
from plugins.curriculum.progressive_resizing import ProgressiveResizing
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.engine.checkpoint import load_checkpoint
from recipes.run import train
from recipes.run.limits import goes_further, same_rates, steps_until
from tests.recipes.run.test_run import asking, stopper
from tests.sparsely import sparsely

SCHEDULERS = sorted(name for name in Catalogue().groups["scheduler"])
SPANLESS = ("constant", "cosine_restarts", "exponential", "inverse_sqrt", "plateau", "step")  # know nothing of a run's length


def files(folder):
    """All that is in a run's folder."""
    return {path.relative_to(folder.path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def assert_same(folder, whole):
    for name in ("metrics", "best_step", "steps", "epochs"):
        assert folder.result[name] == whole.result[name], name
    assert folder.rows == whole.rows
    for name in ("best.ckpt", "last.ckpt"):
        first, second = (load_checkpoint(each.path / "checkpoints" / name)["state_dict"] for each in (folder, whole))
        assert all(bool((value == second[key]).all()) for key, value in first.items())


def typed(command, folder):
    """Do what a message says: `python train.py WORDS` in a folder, in this process."""
    words = shlex.split(command)
    assert words[:2] == ["python", "train.py"]
    folder.path.mkdir(exist_ok=True)
    if any(word.startswith("resume=") for word in words):
        return folder.train(*words[2:])
    return train.train(finish(Catalogue(), compose(words[2:]), words[2:]), folder.path, words[2:])


# ------------------------------------------------------------------ longer


@pytest.mark.parametrize(
    "limits",
    [
        (("max_steps=60",), ("max_steps=-1", "max_epochs=3")),
        (("max_steps=40",), ("max_steps=80",)),
        (("max_epochs=1",), ("max_steps=53",), ("max_steps=-1", "max_epochs=2")),
        (("max_steps=3",), ("max_steps=41",), ("max_steps=79",), ("max_steps=80",)),
    ],
)
def test_a_run_trained_for_longer_is_the_longer_run(folder, folders, limits):
    words = ("optimizer=momentum", "+averaging=ema", "+regularizer=dropout")
    folder.train(*words, *limits[0])
    for limit in limits[1:]:
        folder.resume(*limit)
    folders("whole").train(*words, *limits[-1])
    assert_same(folder, folders("whole"))


def test_nothing_is_left_of_the_validation_at_the_end(folder, folders):
    """It chooses the best model of a run that ends there, and that alone."""
    words = ("trainer.val_every_n_steps=20", "optimizer.lr=0.2", "trainer.log_every_n_steps=5")
    ended = folder.train(*words, "max_steps=25")
    assert ended["best_step"] == 25 and [row["step"] for row in folder.rows if "val/loss" in row] == ["20", "25"]
    checkpoints = folder.path / "checkpoints"
    steps = {path.name: load_checkpoint(path)["global_step"] for path in checkpoints.iterdir()}
    assert steps == {"best.ckpt": 25, "last.ckpt": 25, "previous.ckpt": 20}
    folder.resume("max_steps=27")
    folders("whole").train(*words, "max_steps=27")
    assert_same(folder, folders("whole"))
    assert [row["step"] for row in folder.rows if "val/loss" in row] == ["20", "27"]
    assert (folder.path / "metrics.csv").read_bytes() == (folders("whole").path / "metrics.csv").read_bytes()


def test_a_run_whose_best_weights_are_gone_finds_its_best_model_anew(folder):
    """Neither file has those that the state knows of: what is reported and tested is of one model, and none of the earlier one."""
    words = ("trainer.val_every_n_steps=20", "optimizer.lr=0.2")
    folder.train(*words, "max_steps=25")
    (folder.path / "checkpoints" / "previous.ckpt").unlink()
    last = folder.path / "checkpoints" / "last.ckpt"
    state = torch.load(last)
    known = next(each for each in state["callbacks"].values() if "best_step" in each)
    assert known["best_step"] == 20
    known["best_score"] = 2.0  # which nothing beats
    torch.save(state, last)
    ended = folder.resume("max_steps=27")
    assert ended["best_step"] == load_checkpoint(folder.path / "checkpoints" / "best.ckpt")["global_step"] == 27
    assert not (folder.path / "checkpoints" / "previous.ckpt").exists()


def test_a_lower_limit_ends_with_the_best_model_of_its_steps(folder, folders, with_plugin, extra):
    """A run that was killed after a better model than all before is resumed for less."""

    class Dies(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 15:
                raise SystemExit

    words = ("trainer.val_every_n_steps=7", "trainer.save_every_n_steps=9")
    with_plugin(Dies)
    with pytest.raises(SystemExit):
        folder.train(*words, "max_steps=30")
    best = folder.path / "checkpoints" / "best.ckpt"
    assert load_checkpoint(best)["global_step"] == 14
    with_plugin()
    folder.resume("max_steps=10")
    folders("whole").train(*words, "max_steps=10")
    assert_same(folder, folders("whole"))


# ------------------------------------------------------------------ not longer


@pytest.mark.parametrize(
    ("done", "asked", "further"),
    [
        ({"max_steps": 60}, {"max_steps": -1, "max_epochs": 3}, True),
        ({"max_steps": 60}, {"max_steps": -1, "max_epochs": 1}, False),
        ({"max_steps": 60}, {"max_epochs": 99}, False),  # max_steps takes its place
        ({"max_steps": 80}, {"max_steps": -1, "max_epochs": 2}, False),
        ({"max_epochs": 2}, {"max_steps": 80}, False),
        ({"max_epochs": 2}, {"max_steps": 81}, True),
        ({"max_epochs": 2}, {"max_epochs": 3}, True),
        ({"max_epochs": 2}, {"max_epochs": 1}, False),
        ({"max_steps": 0}, {"max_steps": -1, "max_epochs": 1}, True),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_what_goes_further(done, asked, further, older):
    before = {"max_epochs": 20, "max_steps": -1} | done
    steps = steps_until(before, 40)
    earlier = {"config": before, "steps": steps, "epochs": steps / 40, "steps_an_epoch": 40}
    if older:
        del earlier["steps_an_epoch"]
    assert goes_further(before | asked, earlier) == further
    assert not goes_further(before | asked, {**earlier, "stopped_early": True})


@pytest.mark.parametrize("asked", [("max_steps=20",), ("max_steps=-1", "max_epochs=1"), ("max_steps=50",), ()])
def test_a_finished_run_that_is_asked_for_no_more_stays_as_it_is(folder, folders, capsys, asked):
    folder.train("max_steps=50")
    before = files(folder)
    capsys.readouterr()
    assert folder.resume(*asked)["status"] == "finished" and files(folder) == before
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("the run is finished"))
    assert typed(line[line.index("python train.py") :], folder)["steps"] == 100


@pytest.mark.parametrize("asked", [("max_steps=20",), ("max_epochs=1", "max_steps=-1")])
def test_a_stopped_run_that_is_asked_for_less_than_it_has_stays_as_it_is(folder, with_plugin, extra, asked, folders):
    with_plugin(stopper(extra, 50))
    folder.train("max_steps=60")
    with_plugin()
    before = files(folder)
    with pytest.raises(
        RecipeError, match=f"^{asked[0]} is less than what is done, 51 steps of 40 an epoch: leave it out, or"
    ) as error:
        folder.resume(*asked)
    assert files(folder) == before and "\n" not in str(error.value)
    again = typed(str(error.value).partition("start a new run: ")[2], folders("again"))
    assert again["steps"] == (20 if "20" in asked[0] else 40)
    assert folder.resume()["steps"] == 60


def test_a_run_that_stopped_early_stays_so_whatever_the_limit(folder):
    words = ("+stopping=early", "stopping.patience=1", "stopping.min_delta=9", "trainer.val_every_n_steps=5")
    assert folder.train(*words, "max_steps=50")["stopped_early"]
    before = files(folder)
    for limit in (("max_steps=90",), ("max_steps=-1", "max_epochs=9")):
        assert folder.resume(*limit)["steps"] == 10 and files(folder) == before


def test_a_limit_whose_training_has_ended_is_refused(folder, folders, with_plugin, extra):
    phases = [Phase("more", max_steps=7)]
    with_plugin(asking(extra, *phases), stopper(extra, 14))
    assert folder.train("max_steps=10")["status"] == "stopped"
    with_plugin(asking(extra, *phases))
    before = files(folder)
    with pytest.raises(RecipeError, match=r"^max_steps=20: .* ended at step 10, and phase 'more' has begun") as error:
        folder.resume("max_steps=20")
    assert files(folder) == before
    again = typed(str(error.value).partition("start a new run: ")[2], folders("again"))
    assert again["steps"] == 27
    assert folder.resume("max_steps=10")["steps"] == 17
    before = files(folder)
    assert folder.resume("max_steps=5")["steps"] == 17 and files(folder) == before
    with pytest.raises(RecipeError, match="has begun"):
        folder.resume("max_steps=20")
    assert files(folder) == before


# ------------------------------------------------------------------ schedules


SPAN = ("scheduler.steps=9",)
SHORTER = {name: (*SPAN, "scheduler.warmup=2") for name in ("warmup_cosine", "wsd")}  # than their default warm-up
CASES = [(name, ()) for name in SCHEDULERS] + [(name, SHORTER.get(name, SPAN)) for name in SCHEDULERS if name not in SPANLESS]


@pytest.mark.parametrize("case", sparsely(CASES), ids=lambda case: "-".join((case[0], *case[1])))
def test_a_schedule_goes_on_as_that_of_the_longer_run_or_not_at_all(folder, folders, case, with_plugin, extra):
    name, further = case
    words = (f"scheduler={name}", *further, "optimizer=momentum", "trainer.log_every_n_steps=1")
    folder.train(*words, "max_steps=12")
    before, whole = files(folder), folders("whole")
    whole.train(*words, "max_steps=20")
    rates = [row["lr"] for row in whole.rows if "lr" in row]
    if [row["lr"] for row in folder.rows if "lr" in row] == rates[:12]:
        folder.resume("max_steps=20")
        assert_same(folder, whole)
    else:
        assert name not in SPANLESS
        message = rf"^max_steps=20: the 12 steps done had the learning rates of scheduler={name} over 12 steps"
        with pytest.raises(RecipeError, match=message) as error:
            folder.resume("max_steps=20")
        assert "\n" not in str(error.value) and files(folder) == before
        again = folders("again")
        typed(str(error.value).partition("start a new run: ")[2], again)
        assert_same(again, whole)
    with_plugin(stopper(extra, 13))
    stopped = folders("stopped")
    assert stopped.train(*words, "max_steps=20")["status"] == "stopped"
    with_plugin()
    stopped.resume()
    assert_same(stopped, whole)


def test_the_line_about_a_finished_run_knows_its_schedule(folder, folders, capsys):
    folder.train("scheduler=cosine", "max_steps=10")
    capsys.readouterr()
    folder.resume()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("the run is finished"))
    assert typed(line[line.index("python train.py") :], folders("longer"))["steps"] == 20


def test_schedules_are_tried_not_known_by_name():
    """A schedule that differs only later can go on; one whose state brings its old length along cannot."""
    words = ["scheduler=cosine", "scheduler.steps=30"]
    config = finish(Catalogue(), compose(words), words)
    assert same_rates(config, 50, 80, 40)
    config["scheduler"]["steps"] = None
    assert not same_rates(config, 50, 80, 40) and same_rates(config, 50, 80, 0) and same_rates(config, 50, 50, 40)
    late = {**config, "scheduler": {"_target_": "tests.recipes.run.test_limits.Late"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.run.limits.instantiate", lambda node: Late(state=False))
        assert same_rates(late, 50, 80, 24) and not same_rates(late, 50, 80, 26)
        patch.setattr("recipes.run.limits.instantiate", lambda node: Late(state=True))
        assert not same_rates(late, 50, 80, 24)


class Late:
    """The rate falls at half of the training; with `state` a checkpoint brings the length along."""

    def __init__(self, state):
        self.state = state

    def __call__(self, optimizer, steps):
        from torch.optim.lr_scheduler import LambdaLR

        class Halves(LambdaLR):
            def state_dict(inner):
                return {**super().state_dict(), "half": inner.half}

            def load_state_dict(inner, state):
                half = state.pop("half")
                super().load_state_dict({**state, "lr_lambdas": [None]})
                inner.half = half if self.state else inner.half

        Halves.half = steps // 2
        scheduler = Halves(optimizer, lambda step: 1.0)
        scheduler.half = steps // 2
        scheduler.lr_lambdas = [lambda step: 1.0 if step < scheduler.half else 0.1]
        return scheduler


# ------------------------------------------------------------------ techniques that act by shares of the training


OF_SHARES = {  # what acts from about half of the training on, or until then
    "swa": ("+averaging=swa", "averaging.start=0.5", "normalization=batch"),
    "layer_freezing": (
        "+curriculum=layer_freezing",
        "curriculum.layer_freezing.freeze_start=0.2",
        "model=mlp",
        "model.hidden=[8,8]",
    ),
    "progressive_resizing": ("+curriculum=progressive_resizing", "model=wide_resnet", "model.depth=10", "model.width=1"),
    "when": ("+augmentation=mixup", "augmentation.mixup.when=[0,0.5]"),
}


@pytest.mark.parametrize("name", OF_SHARES)
def test_what_acts_by_shares_of_the_training_goes_on_before_it_has_acted(folder, folders, name, with_plugin, extra, capsys):
    words, whole, ended = (*OF_SHARES[name], "optimizer=momentum"), folders("whole"), folders("ended")
    whole.train(*words, "max_steps=20")
    with_plugin(stopper(extra, 5))
    assert folder.train(*words, "max_steps=12")["status"] == "stopped"
    with_plugin()
    folder.resume("max_steps=20")
    assert_same(folder, whole)
    ended.train(*words, "max_steps=12")
    before = files(ended)
    with pytest.raises(RecipeError, match=r"^max_steps=20: the 12 steps done had .* over 12 steps, over 20 it acts") as error:
        ended.resume("max_steps=20")
    capsys.readouterr()
    ended.resume()
    assert "one that is trained for longer is a new run: python train.py" in capsys.readouterr().out.replace("\n", " ")
    assert "\n" not in str(error.value) and files(ended) == before
    if name == "swa":
        typed(str(error.value).partition("start a new run: ")[2], folders("again"))
        assert_same(folders("again"), whole)


@pytest.mark.parametrize(
    ("technique", "does"),
    [
        (Mixup(when=(0.3, 0.62)), lambda step, total: 0.3 <= step / total < 0.62),
        (Mixup(), lambda step, total: True),
        (SWA(0.29), lambda step, total: step + 1 > 0.29 * total),
        (LayerFreezing(0.4), lambda step, total: step / total > 0.4),
        (ProgressiveResizing(), lambda step, total: ProgressiveResizing().scale(step / total)),
        (ProgressiveResizing(0.5, 0.0, 0.9), lambda step, total: ProgressiveResizing(0.5, 0.0, 0.9).scale(step / total)),
    ],
)
def test_whether_steps_are_the_same_is_as_each_of_them_tells(technique, does):
    for done, before, now in itertools.product(range(0, 24, 3), (7, 23, 24, 100), (7, 20, 50, 101)):
        expected = all(does(step, before) == does(step, now) for step in range(done))
        if before != now:
            assert technique.same_so_far(done, before, now) == expected, (done, before, now)


def test_another_metric_cannot_choose_halfway(folder):
    folder.train("max_steps=10", "trainer.val_every_n_steps=5")
    config = folder.result["config"]
    changed = {**config, "trainer": {**config["trainer"], "monitor": "val/loss"}, "max_steps": 20, "resume": str(folder.path)}
    with pytest.raises(RecipeError, match="^val/loss cannot choose the best model any more, which val/acc has chosen so far"):
        train.train(changed, folder.path, [])
