"""Searches: what their words span, what is asked, what is given up, and that an interrupted one goes on to the same end."""

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from plugins.errors import RecipeError
from recipes.launch import sweep as sweep_module
from recipes.launch.job import Job
from recipes.launch.search import best_of_search, chosen_job, repeated_jobs
from recipes.launch.searching import made, sampler_of, search_of, write_found, write_repeated
from recipes.launch.space import space_of
from recipes.launch.study import Search
from recipes.launch.sweep import Sweep
from recipes.store.files import hold
from recipes.store.plan import Plan, expect_sweep_or_empty, remove_sweep
from tests.command import LIMIT, arguments, command, mistake, variables

optuna = pytest.importorskip("optuna")
SETTINGS = {"objectives": None, "direction": None, "n_trials": 6, "repeats": 0, "max_failure_rate": 0.0}
WORDS = ("model=linear", "logger=csv", "trainer.progress=false", "trainer.accelerator=cpu", "hydra/sweeper=optuna")


def test_words_span_a_space():
    words = [
        "model=cnn",
        "optimizer=sgd,adam",
        "optimizer.lr=tag(log,interval(0.001,1))",
        "model.hidden=range(8,33,8)",
        "seed=3,4",
    ]
    found = space_of([*words, "+regularizer=[],[dropout]", "data.batch_size=int(interval(8,64))", "a.b=range(0,1,0.25)"])
    kinds = optuna.distributions
    assert found.fixed == ["model=cnn"] and found.seeds == ["seed=3", "seed=4"]
    assert found.dimensions == {
        "optimizer": kinds.CategoricalDistribution(["optimizer=sgd", "optimizer=adam"]),
        "optimizer.lr": kinds.FloatDistribution(0.001, 1, log=True),
        "model.hidden": kinds.IntDistribution(8, 32, step=8),
        "+regularizer": kinds.CategoricalDistribution(["+regularizer=[]", "+regularizer=[dropout]"]),
        "data.batch_size": kinds.IntDistribution(8, 64),
        "a.b": kinds.FloatDistribution(0, 0.75, step=0.25),
    }
    words = found.words({"optimizer": "optimizer=adam", "optimizer.lr": 0.5, "model.hidden": 16})
    assert words == ["model=cnn", "optimizer=adam", "optimizer.lr=0.5", "model.hidden=16"]
    assert space_of(["a=1,2", "b=range(0,4)"]).grid() == {"a": ["a=1", "a=2"], "b": [0, 1, 2, 3]}
    with pytest.raises(RecipeError, match="lr is an interval: list values"):
        space_of(["optimizer.lr=interval(0,1)"]).grid()
    with pytest.raises(RecipeError, match="nothing to search"):
        space_of(["seed=0,1", "model=cnn"])
    with pytest.raises(RecipeError, match=r"seed=int\(interval\(0,9\)\): each trial .* list them, such as seed=0,1,2"):
        space_of(["optimizer.lr=0.1,1", "seed=int(interval(0,9))"])
    with pytest.raises(RecipeError, match="the easiest fold: type one, data.fold=0, then .* it finds, -m data.fold=1,2$"):
        space_of(["optimizer.lr=0.1,1", "data.fold=0,1,2"])
    with pytest.raises(RecipeError, match="the easiest split: type one, data.split_seed=3, then"):
        space_of(["optimizer.lr=0.1,1", "data.split_seed=3,4"])


TPE = {"name": "tpe", "seed": 0, "n_startup_trials": 3}


class Trials:
    """A search whose jobs are a function of their words, and have logged it step by step."""

    def __init__(
        self, folder, value, pruner=None, settings=None, words=("x=interval(0.0,1.0)",), at_a_time=1, seconds=None, sampler=TPE
    ):
        self.folder, self.value = folder, value
        space = space_of(words)
        sampler = sampler_of(sampler, space)
        given = {**SETTINGS, **(settings or {})}
        folder.mkdir(parents=True, exist_ok=True)
        self.search = Search(given, space, self.make, folder, at_a_time, sampler, pruner, seconds)

    def make(self, number, words):
        return Job(number, self.folder / str(number), words, " ".join(words))

    def train(self, job, rows=4):
        """Let a job end."""
        self.leave(job, rows)
        job.read()
        self.search.ended(job)

    def leave(self, job, rows=4):
        """What a job leaves at its end."""
        value = self.value(dict(word.split("=") for word in job.words))
        job.folder.mkdir(exist_ok=True)
        metrics = {"val/loss": value, "val/what": 0.5}
        result = {"status": "finished", "monitor": "val/loss", "metrics": metrics, "steps": 7, "config": {}}
        (job.folder / "result.json").write_text(json.dumps(result))
        lines = [f"{step},{value + 1 / step}" for step in range(1, rows + 1)]
        (job.folder / "metrics.csv").write_text("\n".join(["step,val/loss", *lines]))

    def all(self):
        """Train until there is nothing to train."""
        found = []
        while not self.search.is_done():
            more = self.search.more()
            assert more
            for job in more:
                self.train(job)
            found += more
        return found


def squares(values):
    return (float(values["x"]) - 0.3) ** 2 + 0.1 * float(values.get("seed", 0))


def test_the_smallest_loss_is_looked_for_without_being_told(tmp_path):
    trials = Trials(tmp_path, squares, settings={"n_trials": 30})
    jobs = trials.all()
    assert len(jobs) == 30 and trials.search.best.jobs == [min(jobs, key=lambda job: job.score)]
    assert abs(float(trials.search.best.words[0].partition("=")[2]) - 0.3) < 0.1
    again = Trials(tmp_path / "again", squares, settings={"n_trials": 30}).all()
    assert [job.words for job in again] == [job.words for job in jobs]


def test_a_trial_of_several_seeds_is_their_mean(tmp_path):
    trials = Trials(tmp_path, squares, words=("x=interval(0.0,1.0)", "seed=0,1,4"), settings={"n_trials": 3})
    jobs = trials.all()
    assert len(jobs) == 9 and [job.words[-1] for job in jobs[:3]] == ["seed=0", "seed=1", "seed=4"]
    for trial, asked in zip(trials.search.trials, trials.search.study.trials, strict=True):
        assert asked.value == pytest.approx(-sum(job.score for job in trial.jobs) / 3)


def test_what_is_hopeless_is_given_up_at_the_same_step_whenever_it_is_seen(tmp_path):
    pruner = made("pruner", {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 1})
    trials = Trials(tmp_path, squares, pruner, {"n_trials": 12})
    jobs = trials.all()
    given_up = [trials.search.pruned_at(job) for job in jobs]
    assert given_up[:2] == [None, None] and set(given_up[2:]) - {None}
    states = [trial.state.name for trial in trials.search.study.trials]
    assert states == ["COMPLETE" if step is None else "PRUNED" for step in given_up]
    again = Trials(tmp_path / "again", squares, pruner, {"n_trials": 12})  # seen while it runs, a row at a time
    while not again.search.is_done():
        (job,) = again.search.more()
        for rows in (1, 2, 3, 4):
            value = squares(dict(word.split("=") for word in job.words))
            job.folder.mkdir(exist_ok=True)
            (job.folder / "result.json").write_text(json.dumps({"status": "running", "monitor": "val/loss", "config": {}}))
            (job.folder / "metrics.csv").write_text(
                "\n".join(["step,val/loss", *(f"{k},{value + 1 / k}" for k in range(1, rows + 1))])
            )
            again.search._looked = 0
            if again.search.hopeless([job]):
                break
        again.train(job)
    assert [again.search.pruned_at(trial.jobs[0]) for trial in again.search.trials] == given_up


def test_what_a_run_has_logged_before_it_tells_by_what_it_chooses_is_seen_later(tmp_path):
    trials = Trials(
        tmp_path,
        lambda values: 1 - float(values["x"]) / 2,
        made("pruner", {"name": "median", "n_startup_trials": 1}),
        {"n_trials": 20},
    )
    given_up = []
    while not trials.search.is_done():
        (job,) = trials.search.more()
        trials.train(job)
        given_up.append(trials.search.pruned_at(job))
    assert any(step is not None for step in given_up)
    later = Trials(
        tmp_path / "later", trials.value, made("pruner", {"name": "median", "n_startup_trials": 1}), {"n_trials": 20}
    )
    found = []
    while not later.search.is_done():
        (job,) = later.search.more()
        job.folder.mkdir()
        (job.folder / "result.json").write_text('{"status": "running", "config": {}, "metrics": {}, "command": []}')
        shutil.copy(trials.folder / job.folder.name / "metrics.csv", job.folder)
        later.search._looked = 0
        assert later.search.hopeless([job]) == []
        later.train(job)
        found.append(later.search.pruned_at(job))
    assert found == given_up


def test_several_objectives_and_what_is_no_metric(tmp_path):
    settings = {"objectives": ["val/loss", "steps"], "n_trials": 4}
    trials = Trials(tmp_path, squares, settings=settings)
    trials.all()
    assert all(trial.values[1] == -7 for trial in trials.search.study.trials)
    with pytest.raises(RecipeError, match=r"f2 is no metric of these runs; there are val/loss, val/what, steps"):
        Trials(tmp_path / "wrong", squares, settings={"objectives": ["val/f2"], "direction": ["maximize"]}).all()
    with pytest.raises(RecipeError, match=r"val/loss the smallest value is best"):
        Trials(tmp_path / "direction", squares, settings={"direction": ["maximize"]}).all()
    with pytest.raises(RecipeError, match=r"larger or a smaller val/what is better is not known"):
        Trials(tmp_path / "unknown", squares, settings={"objectives": ["val/what"]}).all()


def test_samples_that_a_run_has_trained_on_judge_no_search(tmp_path, monkeypatch):
    read = Job.read

    def of_a_second_phase(job):
        read(job)
        job.result["rulers"] = {"val/loss": {"trained_on_validation": True}}

    monkeypatch.setattr(Job, "read", of_a_second_phase)
    with pytest.raises(
        RecipeError, match=r"judged by val/loss of samples that their last phase has trained on: search with \+stopping=early"
    ):
        Trials(tmp_path, squares).all()


def test_a_trial_without_a_number_is_no_end_of_the_search(tmp_path):
    def leave(job, rows=4):
        left(job, rows)
        result = json.loads((job.folder / "result.json").read_text())
        result["metrics"]["val/auroc"] = None if job.number == 1 else result["metrics"]["val/loss"]
        (job.folder / "result.json").write_text(json.dumps(result))

    trials = Trials(tmp_path, squares, settings={"n_trials": 3, "objectives": ["val/auroc"]})
    left, trials.leave = trials.leave, leave
    trials.all()
    assert [trial.state.name for trial in trials.search.study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials.search.best in trials.search.trials[::2] and trials.search.ended_early == ""


@pytest.mark.parametrize("subdir", [".", "of/a/trial"])
def test_what_was_chosen_is_found_again_wherever_its_folder_lies(tmp_path, subdir):
    (tmp_path / subdir).mkdir(parents=True, exist_ok=True)
    trials = Trials(tmp_path / subdir, squares, settings={"n_trials": 2, "objectives": ["val/loss", "steps"]})
    trials.all()
    write_found(trials.search, tmp_path)
    assert chosen_job(tmp_path) == (trials.search.best.jobs[0].folder, "val/loss and steps")


@pytest.mark.parametrize(("kept", "told"), [(3, "with 3 fresh seeds)"), (2, "with 2 of 3 fresh seeds)"), (0, "")])
def test_a_fresh_seed_that_was_given_up_has_no_part_in_what_is_told(tmp_path, kept, told):
    trials = Trials(tmp_path, squares, settings={"n_trials": 2, "repeats": 3})
    trials.all()
    again = trials.search.again()
    for job in again:
        trials.train(job)
    for job in again[kept:]:
        job.result |= {"status": "pruned", "metrics": {"val/loss": 9.0}}  # by stopping=milestones
    write_found(trials.search, tmp_path)
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert (found["repeats"], found["repeated"], len(found["repeated_jobs"])) == (3, kept, 3)
    best = trials.search.best.jobs[0].score
    assert best_of_search(tmp_path).endswith(told or f"(val/loss {best:.4f} in the search, none of 3 fresh seeds has a number)")
    scores = [job.score for job in again[:kept]]
    assert found["repeated_mean"] == (pytest.approx(sum(scores) / kept) if kept else None)


def test_the_best_is_repeated_with_seeds_that_nothing_was_chosen_by(tmp_path):
    trials = Trials(tmp_path, squares, settings={"n_trials": 3, "repeats": 2}, words=("x=interval(0.0,1.0)", "seed=0,1"))
    trials.all()
    again = trials.search.again()
    assert [job.words[:-1] for job in again] == [trials.search.best.words] * 2
    assert len({job.words[-1] for job in again}) == 2 and trials.search.again() == []


def test_what_earlier_starts_have_repeated_stays_known(tmp_path):
    """Of a search that goes on with more trials and finds a better one, and of one that is ended while it repeats."""
    (tmp_path / "sweep.log").touch()
    fresh = []
    for total in (2, 6):
        trials = Trials(tmp_path, lambda values: -float(values["x"]), settings={"n_trials": total, "repeats": 2})
        trials.search.study.enqueue_trial({"x": 0.5})  # the best of two, and of six no more
        trials.search.study.enqueue_trial({"x": 0.4})
        trials.make = lambda number, words: Job(number, tmp_path / "_".join(words), words, "")
        trials.search.make = trials.make
        trials.all()
        fresh += trials.search.again()
        write_repeated(trials.search, tmp_path)
        assert repeated_jobs(tmp_path) == {job.folder for job in fresh}  # before one of them has begun
        for job in trials.search.repeated:
            trials.train(job)
        write_found(trials.search, tmp_path)
    assert repeated_jobs(tmp_path) == {job.folder for job in fresh} and len(fresh) == 4
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert found["repeats"] == found["repeated"] == 2  # in the mean are those of the best alone
    assert found["repeated_mean"] == pytest.approx(trials.search.best.jobs[0].score)


def test_a_seed_that_was_typed_gives_way_to_the_fresh_ones(tmp_path):
    trials = Trials(tmp_path, squares, settings={"n_trials": 2, "repeats": 2}, words=("x=interval(0.0,1.0)", "seed=3"))
    trials.all()
    found = [[word for word in job.words if word.startswith("seed=")] for job in trials.search.again()]
    assert [len(seeds) for seeds in found] == [1, 1] and len({*found[0], *found[1], "seed=3"}) == 3


@pytest.mark.parametrize("pruner", [None, {"name": "hyperband"}])
def test_a_grid_ends_with_its_last_point(tmp_path, pruner):
    words = ("x=0.1,0.2,0.3", "seed=4", "y=1,2")
    grid = {"name": "grid", "seed": 0}
    trials = Trials(tmp_path, squares, pruner and made("pruner", pruner), words=words, sampler=grid)
    assert len({tuple(job.words) for job in trials.all()}) == 6
    assert {trial.state.name for trial in trials.search.study.trials} <= {"COMPLETE", "PRUNED"}
    assert trials.search.best is not None


def test_a_grid_is_searched_to_its_end_and_what_it_found_is_trained_again(tmp_path):
    words = ("hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=9", "hydra.sweeper.repeats=1", "seed=3", "max_steps=2")
    words += ("hydra/sweeper/pruner=hyperband",)
    done = command("train.py", "-m", *WORDS, *words, "optimizer.lr=0.1,1e-9", "sweep=mine", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / "mine" / name / "result.json").read_text()) for name in "012"]
    assert {result["status"] for result in results} == {"finished"} and [result["seed"] for result in results] == [3, 3, 4]
    found = yaml.safe_load((tmp_path / "mine" / "optimization_results.yaml").read_text())
    assert (found["trials"], found["repeated"]) == (2, 1) and (tmp_path / "mine" / "report.html").exists()


def test_the_other_seeds_of_a_trial_wait_for_the_end_of_the_first(tmp_path):
    pruner = made("pruner", {"name": "median", "n_startup_trials": 1})
    settings = {"n_trials": 2, "max_failure_rate": 1.0}
    trials = Trials(tmp_path, squares, pruner, settings, words=("x=interval(0.0,1.0)", "seed=0,1"))
    (first,) = trials.search.more()
    first.result = {"status": "running", "monitor": "val/loss", "config": {}, "metrics": {}}
    assert trials.search.more() == []
    trials.train(first)
    (second,) = trials.search.more()
    assert [job.words[-1] for job in (first, second)] == ["seed=0", "seed=1"]
    trials.train(second)
    (third,) = trials.search.more()
    third.error = "out of memory"
    trials.search.ended(third)  # and no other seed is waited for
    assert trials.search.is_done()


def test_a_trial_that_diverges_is_no_failure_and_one_that_fails_ends_the_search_in_a_line(tmp_path, monkeypatch):
    read, status = Job.read, "diverged"

    def ended(job):
        read(job)
        job.result |= {"status": status} if job.number == 1 else {}

    monkeypatch.setattr(Job, "read", ended)
    trials = Trials(tmp_path / "diverged", squares, settings={"n_trials": 3})
    trials.all()
    assert [trial.state.name for trial in trials.search.study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials.search.ended_early == ""
    status = "failed"
    trials = Trials(tmp_path / "failed", squares, settings={"n_trials": 3})
    assert len(trials.all()) == 2
    told = "no further trial is begun: 1 of 2 have failed (hydra.sweeper.max_failure_rate=0)"
    assert trials.search.ended_early == told


def test_a_trial_that_is_only_explained_has_not_failed(tmp_path):
    trials = Trials(tmp_path, squares, settings={"n_trials": 2})
    (job,) = trials.search.more()
    trials.search.ended(job)  # with no result and no error
    assert trials.search.ended_early == "" and trials.search.more()


def test_explaining_a_search_trains_nothing(tmp_path):
    words = ("optimizer.lr=0.1,1", "hydra.sweeper.n_trials=2", "explain=true", "sweep=mine")
    done = command("train.py", "-m", *WORDS, *words, cwd=tmp_path, forked=True)
    assert done.returncode == 0 and done.stdout.count("update     ") == 2 and "failed" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_job_is_not_given_up_with_another_seed_of_its_trial(tmp_path, monkeypatch):
    read = Job.read

    def given_up(job):
        read(job)
        job.result |= {"status": "pruned", "pruned_at": 2} if job.number == 1 else {}

    monkeypatch.setattr(Job, "read", given_up)
    trials = Trials(tmp_path, squares, settings={"n_trials": 1}, words=("x=interval(0.0,1.0)", "seed=0,1"))
    finished, pruned = trials.search.more()
    trials.train(pruned)
    trials.train(finished)
    assert [trials.search.pruned_at(job) for job in (finished, pruned)] == [None, 2]
    assert [trial.state.name for trial in trials.search.study.trials] == ["PRUNED"]


def test_a_halving_that_goes_on_has_the_same_values_to_compete_with(tmp_path, monkeypatch):
    halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    trials = Trials(tmp_path / "first", squares, halving, {"n_trials": 12})
    jobs = trials.all()
    given_up = {job.number: step for job in jobs if (step := trials.search.pruned_at(job)) is not None}
    assert 0 < len(given_up) < len(jobs)
    read = Job.read

    def left(job):
        read(job)
        job.result |= {"status": "pruned", "pruned_at": given_up[job.number]} if job.number in given_up else {}

    monkeypatch.setattr(Job, "read", left)
    again = Trials(tmp_path / "again", squares, halving, {"n_trials": 12})
    again.all()
    rungs = [[trial.system_attrs for trial in each.search.study.trials] for each in (trials, again)]
    assert rungs[0] == rungs[1] and any(rungs[0])


def test_a_budget_begins_no_trial_after_its_end(tmp_path):
    trials = Trials(tmp_path, squares, settings={"n_trials": 10**6}, seconds=0.3)
    assert 0 < len(trials.all()) < 10**5


def test_the_lock_of_a_search_that_was_killed_is_let_go(tmp_path, monkeypatch):
    """Optuna's is a link to the path it was given, which leads nowhere from within the folder; it would be waited for without end."""
    monkeypatch.chdir(tmp_path)
    folder = Path("mine")
    folder.mkdir()
    (folder / "sweep.log").touch()  # a sweep makes it before its search
    (folder / "study.log.lock").symlink_to("mine/study.log")
    assert len(Trials(folder, squares).all()) == 6
    assert [path.name for path in folder.glob("study.log*")] == ["study.log"]


ASLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]  # hears no signal, as a job that is still loading


@pytest.fixture
def wait_no_longer(monkeypatch):
    """Lets a sweep look at its jobs some hundred times only."""
    wait, left = Sweep._wait, iter(range(400))

    def waiting(sweep):
        assert next(left, None) is not None, "it waits without end"
        wait(sweep)

    monkeypatch.setattr(Sweep, "_wait", waiting)


@pytest.mark.usefixtures("wait_no_longer")
def test_a_job_that_another_process_trains_fails_its_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_module, "PATIENCE", 0.2)
    sweep = Sweep(tmp_path, Plan(), ASLEEP)
    trials = Trials(tmp_path, squares)
    (tmp_path / "0").mkdir()
    with hold(tmp_path / "0" / "train.log", "trains"):
        sweep.work(trials.search)
    assert [trial.state.name for trial in trials.search.study.trials] == ["FAIL"]
    assert [job.error for job in sweep.failed] == [f"another process trains in {tmp_path / '0'}"]


@pytest.mark.usefixtures("wait_no_longer")
def test_a_job_that_is_given_up_while_it_loads_is_pruned(tmp_path):
    """It goes on from where it was already hopeless, and the signal ends it before it listens."""
    pruner = made("pruner", {"name": "median", "n_startup_trials": 1})
    sweep = Sweep(tmp_path, Plan(), ASLEEP)
    trials = Trials(tmp_path, lambda values: -float(values["x"]), pruner, {"n_trials": 2})
    (first,) = trials.search.more()
    trials.train(first)
    (tmp_path / "1" / "checkpoints").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "1" / "checkpoints" / "last.ckpt", "w") as file:
        file.writestr("a", "b")
    (tmp_path / "1" / "config.yaml").write_text("seed: 0")
    (tmp_path / "1" / "metrics.csv").write_text("step,val/loss\n1,9\n2,9\n")
    result = {"status": "stopped", "monitor": "val/loss", "metrics": {}, "config": {}, "command": []}
    (tmp_path / "1" / "result.json").write_text(json.dumps(result))
    sweep.work(trials.search)
    assert [trial.state.name for trial in trials.search.study.trials] == ["COMPLETE", "PRUNED"]
    left = json.loads((tmp_path / "1" / "result.json").read_text())
    assert (left["status"], left["pruned_at"]) == ("pruned", 1) and "error" not in left and not sweep.failed


class ByWords(Trials):
    """Trials whose jobs have folders by their words, as those of a sweep have, which are asked for one after the other."""

    def __init__(self, folder, asked, at_a_time=1, words=("x=interval(0.0,1.0)",)):
        folder.mkdir(exist_ok=True)
        (folder / "sweep.log").touch()
        pruner = made("pruner", {"name": "median", "n_startup_trials": 1})
        super().__init__(folder, squares, pruner, {"n_trials": len(asked)}, words, at_a_time)
        for x in asked:
            self.search.study.enqueue_trial({"x": x})

    def make(self, number, words):
        return Job(number, self.folder / "_".join(words), words, words[-1])

    def next(self):
        """Let the next jobs end, where they have not."""
        for job in self.search.more():
            if not job.has_ended():
                self.leave(job)
                job.read()
            self.search.ended(job)

    def states(self):
        return [trial.state.name for trial in self.search.study.trials]

    def left(self):
        return {path.parent.name: json.loads(path.read_text())["status"] for path in self.folder.glob("*/result.json")}


def test_a_finished_run_is_not_given_up_where_its_setting_is_asked_for_again(tmp_path):
    """It answers at once, beside more trials than when it was judged; what it has left stays as it is. One that nobody has judged is."""
    asked, sweep = (0.9, 0.3, 0.9, 1.0), Sweep(tmp_path, Plan(), ASLEEP)
    first = ByWords(tmp_path, asked)
    for _ in range(3):
        first.next()
    first.leave(*first.search.more())  # and the search is killed before it hears of the end
    for _ in range(2):
        ByWords(tmp_path, asked)  # killed at once
        trials = ByWords(tmp_path, asked)
        sweep.work(trials.search)
        assert trials.states() == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
        assert trials.left() == {"x=0.9": "finished", "x=0.3": "finished", "x=1.0": "pruned"}
        trials.leave(trials.search.trials[3].jobs[0])  # killed before this is in the folder


def test_a_search_that_goes_on_gives_up_nothing_that_is_finished(tmp_path):
    """The worse of two ended first; when it is asked for again the better one is there already."""
    sweep = Sweep(tmp_path, Plan(), ASLEEP)
    first = ByWords(tmp_path, (0.3, 0.9), at_a_time=2)
    good, bad = first.search.more() + first.search.more()
    first.train(bad)
    first.train(good)
    logged = [trial.intermediate_values for trial in first.search.study.trials]
    for at_a_time in (1, 2):
        again = ByWords(tmp_path, (0.3, 0.9), at_a_time)
        sweep.work(again.search)
        assert again.states() == ["COMPLETE", "COMPLETE"] and set(again.left().values()) == {"finished"}
        assert [trial.intermediate_values for trial in again.search.study.trials] == logged and all(logged)


def test_a_first_seed_that_was_kept_is_not_given_up_when_the_search_goes_on(tmp_path):
    words = ("x=interval(0.0,1.0)", "seed=0,1")
    first = ByWords(tmp_path, (0.3, 0.9), 2, words)
    good, bad = first.search.more() + first.search.more()
    for job in (bad, good, *first.search.more()[:1]):
        first.train(job)
    again = ByWords(tmp_path, (0.3, 0.9), 1, words)
    while not again.search.is_done():
        again.next()
    assert again.states() == ["COMPLETE", "COMPLETE"]


def test_a_pruner_s_numbers_may_be_found_by_optuna_or_typed():
    typed = made("pruner", {"name": "halving", "min_resource": 1, "reduction_factor": 2})
    assert (typed._min_resource, typed._reduction_factor) == (1, 2)
    assert made("pruner", {"name": "hyperband", "max_resource": 9})._max_resource == 9
    assert made("pruner", {"name": "halving", "min_resource": "auto"})._min_resource is None
    with pytest.raises(RecipeError, match=r"pruner\.min_resource must be a whole number or auto, got x"):
        made("pruner", {"name": "halving", "min_resource": "x"})


@pytest.mark.parametrize(
    ("what", "node", "told"),
    [
        ("sampler", {"name": "tpe", "n_ei_candidates": 0}, "n_ei_candidates must be a whole number ≥ 1, got 0"),
        ("sampler", {"name": "cmaes", "sigma0": 0.0}, "sigma0 must be a number above 0, or null, got 0.0"),
        ("pruner", {"name": "hyperband", "max_resource": 0}, "max_resource must be a whole number ≥ 1, got 0"),
        ("pruner", {"name": "hyperband", "reduction_factor": 1}, "reduction_factor must be a whole number ≥ 2, got 1"),
    ],
)
def test_what_optuna_would_refuse_after_some_trials_is_refused_at_once(what, node, told):
    with pytest.raises(RecipeError, match=told):
        made(what, node)


@pytest.mark.skipif(find_spec("cmaes") is not None, reason="it is installed")
def test_a_sampler_without_its_package_is_refused_at_once():
    with pytest.raises(RecipeError, match="needs a package of its own: pip install cmaes"):
        made("sampler", {"name": "cmaes", "seed": 0})


def test_a_job_that_was_given_up_stays_so_whatever_the_search_thinks_now(tmp_path):
    """Beside other trials than in its first start, or by a technique, of which the search's pruner knows nothing."""
    for pruner in (None, made("pruner", {"name": "median"})):
        trials = Trials(tmp_path / str(pruner), squares, pruner, {"n_trials": 3})
        read = Job.read

        def given_up(job, read=read):
            read(job)
            job.result |= {"status": "pruned", "pruned_at": 2} if job.number == 1 else {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Job, "read", given_up)
            jobs = trials.all()
        assert [trials.search.pruned_at(job) for job in jobs] == [None, 2, None]
        assert [trial.state.name for trial in trials.search.study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
        assert max(trials.search.study.trials[1].intermediate_values, default=2) == 2
    assert trials.search.study.study_name == "search"  # by which Hyperband chooses: the same each time


@pytest.mark.parametrize("left", ["study.log", "study.log.lock", "jobs.yaml.part-7", "multirun.yaml"])
def test_a_search_that_was_killed_before_its_first_job_holds_no_folder(tmp_path, left):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / left).symlink_to("gone/study.log") if left.endswith("lock") else (folder / left).touch()
    if left.startswith("study"):
        with pytest.raises(RecipeError, match="is no sweep"):  # it may be somebody's own
            expect_sweep_or_empty(folder)
    (folder / "sweep.log").touch()
    expect_sweep_or_empty(folder)
    remove_sweep(folder)
    assert not list(folder.iterdir())


def test_a_search_that_is_refused_leaves_nothing(tmp_path):
    words = ("optimizer.lr=0.1,1", "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=-1", "sweep=mine")
    assert "n_startup_trials" in mistake("-m", *WORDS, *words, cwd=tmp_path, forked=True)
    assert not list(tmp_path.iterdir())


def test_a_hopeless_job_is_ended_long_before_its_last_step(tmp_path):
    prunes = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1", "hydra.sweeper.n_trials=2")
    grid = ("hydra/sweeper/sampler=grid", "hydra.sweeper.sampler.seed=6", "max_epochs=2,400", "optimizer.lr=0.1,1e-9")
    done = command("train.py", "-m", *WORDS, *prunes, *grid, "sweep=mine", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / "mine" / name / "result.json").read_text()) for name in "01")
    assert first["status"] == "finished" and first["config"]["max_epochs"] == 2
    assert second["status"] == "pruned" and second["pruned_at"] == second["steps_an_epoch"]
    with open(tmp_path / "mine" / "1" / "metrics.csv") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert max(steps) < 200 * second["steps_an_epoch"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimizer.lr=0.1"], "has nothing to search"),
        (["optimizer.lr=0.1,1", "hydra/sweeper/pruner=media"], "pruner"),
        (
            ["optimizer.lr=0.1,1", "hydra/sweeper/pruner=median", "hydra.sweeper.objectives=[val/acc]"],
            "leave hydra.sweeper.objectives out",
        ),
        (["optimizer.lr=interval(0.1,1)", "hydra/sweeper/sampler=grid"], "list values"),
        (["optimizer.lr=0.1,1", "hydra.sweeper.budget=soon"], "hydra.sweeper.budget must be a length of time"),
        (["optimizer.lr=0.1,1", "hydra.sweeper.sampler.n_startup_trials=x"], "hydra.sweeper.sampler"),
        (
            ["optimizer.lr=0.1,1", "hydra.sweeper.direction=max"],
            "hydra.sweeper.direction must be maximize or minimize, got max",
        ),
        (
            ["optimizer.lr=0.1,1", "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.name=foo"],
            "hydra/sweeper/pruner must be one of none, median, halving, hyperband, got foo",
        ),
    ],
)
def test_mistakes_in_a_search(tmp_path, words, told):
    assert told in mistake("-m", *WORDS, *words, cwd=tmp_path, forked=True)


def test_an_objective_that_is_measured_in_two_ways_is_refused_once_it_is_seen(tmp_path):
    words = ("hydra/sweeper/sampler=grid", "hydra.sweeper.objectives=val/loss", "max_steps=2", "seed=3", "sweep=mine")
    told = command(
        "train.py", "-m", *WORDS, *words, "loss=cross_entropy,focal", "optimizer.lr=0.1,0.01", cwd=tmp_path, forked=True
    )
    assert told.returncode == 2 and told.stderr.startswith("error: the jobs of this search have val/loss with loss._target_")
    assert told.stderr.endswith("which do not compare: give all the same\n")
    assert len(list((tmp_path / "mine").glob("*/result.json"))) in (2, 3)  # of four


def test_one_objective_and_one_direction_need_no_list(tmp_path):
    settings = {"sampler": {"name": "random"}, "pruner": {"name": "none"}, "n_jobs": 1, "budget": None}
    settings |= SETTINGS | {"objectives": "val/acc", "direction": "maximize"}
    sweep = Sweep(tmp_path, Plan(), ASLEEP)
    search = search_of(OmegaConf.create({"sweeper": settings}), ["optimizer.lr=0.1,1"], sweep)
    assert (search.objectives, search.directions) == (["val/acc"], ["maximize"])
    for again in ({}, {"repeated_jobs": ["3", "4"]}):  # what was chosen before more trials is not what the search has chosen
        found = {"best_job": "1", "metric": "val/acc", **again}
        (tmp_path / "optimization_results.yaml").write_text(yaml.safe_dump(found))
        assert chosen_job(tmp_path) == (tmp_path / "1", "val/acc")
        search_of(OmegaConf.create({"sweeper": settings}), ["optimizer.lr=0.1,1"], sweep)
        assert chosen_job(tmp_path) is None
        assert repeated_jobs(tmp_path) == {tmp_path / name for name in again.get("repeated_jobs", ())}
    settings["objectives"] = [3]
    with pytest.raises(RecipeError, match="objectives must be names of metrics, got 3"):
        search_of(OmegaConf.create({"sweeper": settings}), ["optimizer.lr=0.1,1"], sweep)
    settings["objectives"] = ["val/acc", "test/loss"]
    with pytest.raises(RecipeError, match="chooses by test nothing any more, and it would by test/loss: type val/loss"):
        search_of(OmegaConf.create({"sweeper": settings}), ["optimizer.lr=0.1,1"], sweep)
    for objectives in (None, "val/acc"):
        settings |= {"objectives": objectives, "direction": ["maximize", "minimize"]}
        with pytest.raises(RecipeError, match=r"direction=\[maximize, ?minimize\]: expected 1, one for each"):
            search_of(OmegaConf.create({"sweeper": settings}), ["optimizer.lr=0.1,1"], sweep)


def left(folder):
    """What the trials of a search have left that counts: words, how they ended, what they measured."""
    found = {}
    for path in sorted(folder.glob("*/result.json")):
        result = json.loads(path.read_text())
        metrics = (
            {name: value for name, value in result["metrics"].items() if "train/" not in name}
            if result["status"] == "finished"
            else {}
        )
        found[path.parent.name] = (result["command"], result["status"], result.get("pruned_at"), metrics)
    return found


@pytest.mark.slow
@pytest.mark.waits
def test_a_search_that_is_killed_twice_ends_as_one_that_was_not(tmp_path):
    prunes = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2", "hydra.sweeper.n_trials=7")
    words = ("-m", *WORDS, *prunes, "max_epochs=40", "optimizer.lr=tag(log,interval(0.0001,1))")
    done = command("train.py", *words, "sweep=whole", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    whole = left(tmp_path / "whole")
    assert {status for _, status, _, _ in whole.values()} == {"finished", "pruned"}
    drawn = random.Random(0)
    start = words
    for _ in range(2):
        process = subprocess.Popen(
            arguments("train.py", *start, "sweep=mine"),
            **{"cwd": tmp_path, "env": variables(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
        )
        before, until = len(left(tmp_path / "mine")), time.monotonic() + LIMIT
        while len(left(tmp_path / "mine")) < before + 2 and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(drawn.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        start = ()
    done = command("train.py", "sweep=mine", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    mine = left(tmp_path / "mine")
    assert {name: found[1:] for name, found in mine.items()} == {name: found[1:] for name, found in whole.items()}
    results = [yaml.safe_load((tmp_path / name / "optimization_results.yaml").read_text()) for name in ("whole", "mine")]
    assert results[0] == results[1]
    # a job that ended by itself before its end was noted, since the search was killed in between
    given_up = [tmp_path / "mine" / name / "result.json" for name, found in mine.items() if found[1] == "pruned"]
    for path in given_up:
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": "finished", "pruned_at": None}))
    done = command("train.py", "sweep=mine", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and given_up, done.stderr
    assert left(tmp_path / "mine") == mine
