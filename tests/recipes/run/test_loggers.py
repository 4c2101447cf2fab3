import csv
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml

from plugins.errors import RecipeError
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.metrics import Histogram
from recipes.run.loggers.csv_files import CsvRunLogger
from recipes.run.loggers.tensorboard import TensorBoardRunLogger
from recipes.run.loggers.wandb import WandbRunLogger
from recipes.store.wandb_sync import sync_command
from tests.command import LIMIT, arguments, variables
from tests.wandb_server import KEY, wandb_server

FACTS = {"name": None, "recipe": "defaults", "group": None, "tags": ["dropout"], "notes": "", "config": {"seed": 0}}
FINISHED = {"status": "finished", "metrics": {"val/acc": 0.5}, "seconds": 1.0}
WANDB = ("logger=wandb", "logger.wandb.mode=offline")
JOBS = [("sgd", 1), ("sgd", 2), ("adam", 1)]


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch, tmp_path):
    """No key, no settings of wandb's, and no terminal to ask for them."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    wandb.teardown()
    yield
    if wandb.run is not None:
        wandb.run.finish()
    wandb.teardown()


def offline_runs(folder):
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


# ------------------------------------------------------------------ metrics.csv


def test_csv_has_a_row_for_each_step(tmp_path):
    log = CsvRunLogger(tmp_path, FACTS)
    log.log_metrics({"loss": 1.5, "lr": 0.1}, step=1)
    log.log_metrics({"loss": torch.tensor(1.25), "lr": 0.1}, step=2)
    log.log_metrics({"val/acc": 1 / 3}, step=2)
    log.log_metrics({"loss": 1.0}, step=3)
    expected = [
        {"step": 1, "loss": 1.5, "lr": 0.1},
        {"step": 2, "loss": 1.25, "lr": 0.1, "val/acc": 1 / 3},
        {"step": 3, "loss": 1.0},
    ]
    assert rows(tmp_path) == expected
    log.log_metrics({"loss": float("nan")}, step=4)
    assert rows(tmp_path)[:3] == expected and rows(tmp_path)[3]["loss"] != rows(tmp_path)[3]["loss"]


def test_csv_goes_on_after_a_rewind(tmp_path):
    log = CsvRunLogger(tmp_path, FACTS)
    log.rewind(5)  # nothing is there yet
    for step in range(1, 6):
        log.log_metrics({"loss": step / 10}, step=step)
    log.log_metrics({"test/acc": 0.5}, step=5)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("1")  # killed while it wrote a row of step 10
    again = CsvRunLogger(tmp_path, FACTS)
    again.rewind(3)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    again.log_metrics({"loss": 9.0}, step=3)
    again.log_metrics({"loss": 0.4, "lr": 1.0}, step=4)
    assert rows(tmp_path)[2:] == [{"step": 3, "loss": 9.0}, {"step": 4, "loss": 0.4, "lr": 1.0}]
    assert "test/acc" not in (tmp_path / "metrics.csv").read_text()


# ------------------------------------------------------------------ histograms.csv


def histogram_rows(folder):
    with open(folder / "histograms.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_histogram_is_a_row(tmp_path):
    log, expected = CsvRunLogger(tmp_path, FACTS), []
    (tmp_path / "histograms.csv").write_text("of another run")
    lost = Histogram.of(torch.full((5,), torch.inf))
    log.log_histograms({"lost": lost}, step=1)
    for step in (2, 3):
        values = {"a": torch.randn(1000), "b, quoted": torch.randn(7) * 1e-12}
        log.log_histograms({**{name: Histogram.of(value) for name, value in values.items()}, "lost": lost}, step=step)
        for name, value in values.items():
            counts, edges = np.histogram(value.double().numpy(), 64)
            ends = {"low": repr(float(edges[0])), "high": repr(float(edges[-1]))}
            expected.append({"step": str(step), "name": name, **ends, "counts": " ".join(map(str, counts))})
    assert histogram_rows(tmp_path) == expected


@pytest.mark.parametrize("cut", [1, 30, 2])
def test_histograms_go_on_after_a_rewind(tmp_path, cut):
    log = CsvRunLogger(tmp_path, FACTS)
    for step in range(1, 6):
        log.log_histograms({name: Histogram.of(torch.randn(50)) for name in ("a", "b")}, step=step)
    whole, path = histogram_rows(tmp_path), tmp_path / "histograms.csv"
    path.write_bytes(path.read_bytes()[:-cut])  # killed while it wrote the last row
    again = CsvRunLogger(tmp_path, FACTS)
    again.rewind(4)
    assert histogram_rows(tmp_path) == whole[:8]
    again.log_histograms({"a": Histogram.of(torch.ones(3))}, step=5)
    assert histogram_rows(tmp_path)[:8] == whole[:8]
    counts = [0] * 32 + [3] + [0] * 31
    last = {"step": "5", "name": "a", "low": "0.5", "high": "1.5", "counts": " ".join(map(str, counts))}
    assert histogram_rows(tmp_path)[8:] == [last]


def test_a_full_disk_is_one_line(tmp_path):
    log = CsvRunLogger(tmp_path, FACTS)
    log.log_metrics({"loss": 1.0}, step=1)
    log.log_histograms({"a": Histogram.of(torch.randn(9))}, step=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for path, write in (
        (log.path, lambda: log.log_metrics({"loss": 2.0}, 2)),
        (log.histograms, lambda: log.log_histograms({"a": Histogram.of(torch.ones(2))}, 2)),
    ):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
            with pytest.raises(RecipeError, match=r"cannot be written \(File too large\)"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ------------------------------------------------------------------ wandb


def test_each_job_is_a_run_of_its_own_with_its_numbers(folders):
    metrics = {}
    for name in ("first", "second"):
        folder = folders(name)
        folder.train(*WANDB, "max_steps=2", f"seed={len(metrics)}", "trainer.log_every_n_steps=1")
        metrics[name] = folder
        assert wandb.run is None  # the next job cannot write into it
    files = [offline_runs(folder.path) for folder in metrics.values()]
    assert [len(found) for found in files] == [1, 1]
    names = [found[0].name for found in files]
    assert names[0] != names[1]
    for folder, (file,) in zip(metrics.values(), files, strict=True):
        content = file.read_bytes()
        assert file.name == f"run-{(folder.path / 'wandb' / 'run-id.txt').read_text()}.wandb"
        # records are framed, not compressed: what was logged can be found in them
        assert all(word in content for word in (b"val/acc", b"test/acc", b"step/loss", b"trainer/global_step", b"standardize"))


def test_a_resumed_run_keeps_its_id(folder, with_plugin, extra):
    class Ends(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 2:
                raise SystemExit

    with_plugin(Ends)
    with pytest.raises(SystemExit):
        folder.train(*WANDB, "max_steps=4")
    with_plugin()

    folder.resume()
    first, second = offline_runs(folder.path)
    assert first.name == second.name and first.parent != second.parent


def synced(folder, server):
    """What the server has after the command that the folder's run gives was typed into a shell."""
    wandb.teardown()  # as at the end of a process: all is written
    where = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        sync_command([folder]),
        shell=True,
        cwd=folder.parent,
        env=os.environ | where,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0 and "ERROR" not in done.stderr, done.stderr
    return server.runs[(folder / "wandb" / "run-id.txt").read_text()]


def test_a_synced_run_has_its_numbers(folder):
    result = folder.train(*WANDB, "max_steps=4", "trainer.val_every_n_steps=2", "seed=3")
    with wandb_server() as server:
        run = synced(folder.path, server)
        assert sync_command([folder.path]) is None
    recipe = "trainer.accelerator=cpu max_steps=4 trainer.val_every_n_steps=2 "
    assert run["displayName"].startswith(recipe) and run["displayName"].endswith(" seed=3")
    assert run["jobType"].startswith(recipe[:50]) and len(run["jobType"]) == 64
    assert {"sgd", "standardize"} <= set(run["tags"])
    for name in ("seconds", "parameters", "peak_memory"):
        assert run["summary"][name] == result[name]
    for name, value in result["metrics"].items():
        assert run["summary"][f"result/{name}"] == value


def test_a_run_that_was_killed_and_resumed_offline_is_synced_whole(folder, with_plugin, extra):
    class Interrupts(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 5:
                raise SystemExit

    words = (
        *WANDB,
        "max_steps=8",
        "trainer.log_every_n_steps=1",
        "trainer.save_every_n_steps=2",
        "trainer.val_every_n_steps=3",
    )
    words += ("+diagnostics=gradient_stats", "diagnostics.gradient_stats.every_n_steps=1")
    with_plugin(Interrupts)
    with pytest.raises(SystemExit):
        folder.train(*words)
    wandb.teardown()
    (first,) = offline_runs(folder.path)
    first.write_bytes(first.read_bytes()[:-100])  # a process that is killed leaves half a record
    while time.strftime("%Y%m%d_%H%M%S") in first.parent.name:  # no process starts again in the second in which it was killed
        time.sleep(0.05)
    with_plugin()
    folder.resume()
    with wandb_server() as server:
        history = synced(folder.path, server)["history"]
    found = {}
    for row in history:
        found.setdefault(row["trainer/global_step"], {}).update(row)
    assert len(folder.rows) == len(found) == 8
    for row in folder.rows:
        there = found[int(row["step"])]
        assert all(there[name] == float(value) for name, value in row.items() if name != "step")
    with open(folder.path / "histograms.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert found[int(row["step"])][row["name"]]["values"] == list(map(int, row["counts"].split()))


def test_a_run_with_a_server_is_there_at_once(folder, monkeypatch, capfd):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        folder.train("logger=wandb", "max_steps=4", "trainer.val_every_n_steps=2")
        wandb.teardown()
    place = folder.result["wandb"]
    assert place["mode"] == "online" and place["entity"] == "somebody"
    assert (
        place["url"] == f"{server.url}/somebody/lightning-recipes/runs/{place['id']}" and place["url"] in capfd.readouterr().out
    )
    assert sync_command([folder.path]) is None
    steps = {row["trainer/global_step"] for row in server.runs[place["id"]]["history"]}
    assert steps == {int(row["step"]) for row in folder.rows}


def test_seeds_share_a_sub_group_and_a_sweep_is_a_group(folders):
    sweep = folders("my sweep").path
    words = ["trainer.accelerator=cpu", "model=mlp", "max_steps=1", "logger=wandb"]
    jobs = {f"{number}": [f"optimizer={name}", f"seed={seed}", *words] for number, (name, seed) in enumerate(JOBS)}
    sweep.mkdir()
    plan = {"words": ["optimizer=sgd,adam", "seed=1,2", *words], "hydra": [], "jobs": jobs}
    (sweep / "jobs.yaml").write_text(yaml.safe_dump(plan))
    places = {}
    for (name, seed), folder in zip(JOBS, jobs, strict=True):
        job = folders(f"my sweep/{folder}")
        job.train("logger.wandb.mode=offline", *(word for word in jobs[folder] if "accelerator" not in word))
        places[name, seed] = job.result["wandb"]
    assert {place["group"] for place in places.values()} == {"my sweep"}
    assert {(name, place["job_type"]) for (name, _), place in places.items()} == {
        (name, f"optimizer={name}") for name, _ in JOBS
    }
    assert len({place["id"] for place in places.values()}) == len(JOBS)
    assert {(place["mode"], place["url"], place["project"]) for place in places.values()} == {
        ("offline", None, "lightning-recipes")
    }


def test_the_sub_group_outside_of_a_sweep_is_the_recipe(folder):
    folder.train(*WANDB, "max_steps=1", "seed=7", "optimizer=adam", "name=mine", "notes=hello")
    place = folder.result["wandb"]
    assert place["group"] is None and place["job_type"].startswith("trainer.accelerator=cpu max_steps=1 optimizer=adam ")
    assert not any(word in place["job_type"] for word in ("seed=", "name=", "notes=", "logger", "progress"))


def test_what_wandb_is_told_may_be_a_number(folder):
    folder.train("max_steps=1", *WANDB, "logger.wandb.group=1", "logger.wandb.entity=2", "name=3", "tags=[4]")
    assert (folder.result["wandb"]["group"], folder.result["wandb"]["entity"]) == ("1", "2")
    for name in ("group", "entity", "mode"):
        with pytest.raises(RecipeError, match=rf"^logger.wandb.{name} must be text, got \['a'\]$"):
            WandbRunLogger(folder.path, {}, **{name: ["a"]})


@pytest.mark.parametrize(
    ("words", "begins"), [({}, True), ({"mode": "offline", "project": "x"}, True), ({"mode": "disabled"}, False)]
)
def test_wandbs_service_begins_while_a_run_is_built(tmp_path, words, begins):
    code = (
        "import os, sys, threading, wandb\n"
        "from recipes.run.loggers.wandb import WandbRunLogger\n"
        f"WandbRunLogger.prepare(**{words})\n"
        "[thread.join() for thread in threading.enumerate() if thread.name == 'wandb']\n"
        "print(service := os.environ.get('WANDB_SERVICE'))\n"
        "with wandb.init(mode='offline', dir=sys.argv[1]):\n"
        "    assert service in (None, os.environ['WANDB_SERVICE'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=variables(), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout.splitlines()[0] != "None") == begins


def test_a_run_that_is_not_on_wandb_says_nothing_of_it(folders):
    for name, logger in (("csv", "logger=csv"), ("disabled", "logger=wandb")):
        folder = folders(name)
        folder.train("max_steps=1", logger, *(["logger.wandb.mode=disabled"] if name == "disabled" else []))
        assert "wandb" not in folder.result


def test_a_very_long_command_starts_a_run(tmp_path):
    """The server refuses longer texts, and what differs must not become the same."""
    places = []
    for number in range(2):
        recipe = " ".join(f"data.path=/a/long/way/{part}" for part in range(100)) + f" optimizer.lr=0.{number}"
        facts = {**FACTS, "recipe": recipe, "group": "g" * 500, "tags": ["t" * 500, "", "short"], "config": {"seed": 123}}
        log = WandbRunLogger(tmp_path / str(number), facts, mode="offline")
        run = log.experiment
        assert len(run.name) <= 128 and run.name.endswith(" seed=123") and run.name[:20] == recipe[:20]
        assert len(run.group) <= 128 and [len(tag) <= 64 for tag in run.tags] == [True, True] and "short" in run.tags
        places.append(log.facts()["wandb"]["job_type"])
        log.finish(FINISHED)
        assert len(offline_runs(tmp_path / str(number))) == 1
    assert len(set(places)) == 2 and all(len(place) <= 64 for place in places)
    same = WandbRunLogger(tmp_path / "again", facts, mode="offline")
    assert same.facts()["wandb"]["job_type"] == places[1]
    same.finish(FINISHED)


@pytest.mark.parametrize(("mode", "runs"), [("offline", 1), ("disabled", 0), ("dryrun", 1)])
def test_wandb_mode_is_respected(monkeypatch, tmp_path, mode, runs):
    monkeypatch.setenv("WANDB_MODE", mode)
    log = WandbRunLogger(tmp_path, FACTS)
    log.log_metrics({"val/acc": 0.5}, step=1)
    log.log_histograms({"weights": Histogram.of(torch.randn(100)), "lost": Histogram.of(torch.tensor([torch.nan]))}, step=1)
    hint = log.finish(FINISHED)
    assert len(offline_runs(tmp_path)) == runs
    assert (f"wandb sync {offline_runs(tmp_path)[0].parent}" == hint or ".." in hint) if runs else hint is None


def test_the_option_wins_over_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    WandbRunLogger(tmp_path, FACTS, mode="offline").finish(FINISHED)
    assert len(offline_runs(tmp_path)) == 1


@pytest.mark.parametrize("mode", [None, "online"])
def test_without_a_key_nobody_is_asked(tmp_path, mode, caplog):
    began = time.monotonic()
    log = WandbRunLogger(tmp_path, FACTS, mode=mode)
    assert log.mode == "offline" and "wandb sync" in log.finish(FINISHED) and len(offline_runs(tmp_path)) == 1
    assert time.monotonic() - began < 30
    assert ("no key on this machine" in caplog.text) == (mode == "online")


def test_a_server_that_does_not_answer_means_offline(monkeypatch, folder, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    result = folder.train("logger=wandb", "logger.wandb.init_timeout=1", "max_steps=2")
    assert result["status"] == "finished" and len(offline_runs(folder.path)) >= 1
    said = capfd.readouterr()
    lines = [line for line in said.err.splitlines() if "wandb" in line]
    assert len(lines) == 1 and "the server does not answer" in lines[0] and "logged offline" in lines[0]
    assert "wandb sync" in said.out


@pytest.mark.parametrize("mode", ["on", "sometimes"])
def test_an_unknown_mode_is_one_line(monkeypatch, tmp_path, mode):
    with pytest.raises(RecipeError, match="logger.wandb.mode must be one of online, offline, disabled"):
        WandbRunLogger(tmp_path, FACTS, mode=mode)
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(RecipeError, match=f"WANDB_MODE={mode} in the environment: .*'offline'"):
        WandbRunLogger(tmp_path, FACTS)


# ------------------------------------------------------------------ together


def test_all_loggers_together_get_the_same_numbers(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = (
        "logger=[csv,tensorboard,wandb]",
        "logger.wandb.mode=offline",
        "+diagnostics=gradient_stats",
        "diagnostics.gradient_stats.every_n_steps=3",
    )
    result = folder.train(*words, "max_steps=9", "trainer.log_every_n_steps=3", "trainer.val_every_n_steps=3")
    assert {int(row["step"]) for row in folder.rows} == {1, 3, 6, 9}
    events = EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"histograms": 0})  # all of them
    events.Reload()
    for name in ("val/loss", "val/acc", "step/loss", "lr"):
        there = {int(row["step"]): float(row[name]) for row in folder.rows if name in row}
        seen = {event.step: event.value for event in events.Scalars(name)}
        assert seen.keys() == there.keys() and all(seen[step] == pytest.approx(there[step], rel=1e-6) for step in seen)
    assert events.Scalars("test/acc")[0].value == pytest.approx(result["metrics"]["test/acc"])
    with open(folder.path / "histograms.csv", newline="") as file:
        for row in csv.DictReader(file):
            (seen,) = (event for event in events.Histograms(row["name"]) if event.step == int(row["step"]))
            value, counts = seen.histogram_value, list(map(int, row["counts"].split()))
            assert (value.min, value.max, value.num) == (float(row["low"]), float(row["high"]), sum(counts))
            # tensorboard leaves out empty bins at both ends
            assert [count for count in value.bucket if count] == [count for count in counts if count]
    assert len(events.Tags()["histograms"]) == 2
    assert len(offline_runs(folder.path)) == 1
    assert load_checkpoint(folder.path / "checkpoints" / "last.ckpt")["global_step"] == 9


@pytest.mark.parametrize("ends", ["interrupted", "finished"])
def test_tensorboard_forgets_what_a_resume_takes_back(folder, with_plugin, extra, ends):
    """Also the last validation and the test of a run that had ended: each curve has each step once, as metrics.csv has it."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Interrupts(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 5 and ends == "interrupted":
                raise SystemExit

    words = ("logger=[csv,tensorboard]", "trainer.log_every_n_steps=1", "trainer.save_every_n_steps=2")
    words += ("trainer.val_every_n_steps=3", "+diagnostics=gradient_stats", "diagnostics.gradient_stats.every_n_steps=1")
    with_plugin(Interrupts)
    with pytest.raises(SystemExit) if ends == "interrupted" else nullcontext():
        folder.train(*words, f"max_steps={8 if ends == 'interrupted' else 5}")
    time.sleep(1.1)  # files of TensorBoard are in the order of the seconds in which they were begun
    with_plugin()
    folder.resume("max_steps=8")
    events = EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    names = {name for row in folder.rows for name in row} - {"step"}
    assert {"val/acc", "test/acc", "step/loss"} <= names <= set(events.Tags()["scalars"])
    for name in names:
        there = [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-6)) for row in folder.rows if name in row]
        assert [(event.step, event.value) for event in events.Scalars(name)] == there
    with open(folder.path / "histograms.csv", newline="") as file:
        kept = [(row["name"], int(row["step"])) for row in csv.DictReader(file)]
    assert kept and sorted(kept) == sorted(
        (name, event.step) for name in {name for name, _ in kept} for event in events.Histograms(name)
    )


def test_tensorboard_without_its_package_is_one_line(monkeypatch, tmp_path):
    from lightning.fabric.loggers import tensorboard

    monkeypatch.setattr(tensorboard, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(tensorboard, "_TENSORBOARDX_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(RecipeError, match="pip install tensorboard"):
        TensorBoardRunLogger(tmp_path, FACTS)


@pytest.mark.slow
def test_a_run_goes_on_without_wandbs_service(tmp_path):
    """Slurm's SIGTERM ends all processes of a job but those that have something to save."""
    words = ["model=mlp", "max_epochs=20", "trainer.accelerator=cpu", "trainer.progress=false", "hydra.run.dir=mine"]
    process = subprocess.Popen(
        arguments("train.py", *words), cwd=tmp_path, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    rows = tmp_path / "mine" / "metrics.csv"
    while not rows.exists() or len(rows.read_text().splitlines()) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    (service,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and f"--pid\0{process.pid}\0" in path.read_text()
    ]
    os.kill(service, signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and out.count(b"the service on this machine has ended") == 1
    assert json.loads((tmp_path / "mine" / "result.json").read_text())["status"] == "finished"
