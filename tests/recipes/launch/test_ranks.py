"""Several ranks on one machine, as users start them: by the command itself, by torchrun and in sweeps; real processes, real signals."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.sweep import below
from plugins.errors import RecipeError
from recipes.compare.runs import read
from recipes.config.catalogue import Catalogue
from recipes.launch import failures, ranks, watch
from recipes.launch.identity import LIFELINE, here
from recipes.store.shapes import FORMAT
from tests.command import ROOT, arguments, command, mistake, torchrun, variables
from tests.packages import make_entry_points

TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.progress=false", "logger=csv")
ENDLESS = (*TWO, "model=linear", "max_steps=1000000", "trainer.log_every_n_steps=3")
LIMIT = 120  # seconds; a rank that waits for another one waits for ever

FAULTY = """
import os, time, warnings
from plugins.base import Plugin, RecipeError, Stage

class Faulty(Plugin):
    stage = Stage.PENALTY

    def __init__(self, rank=1, step=3, kind="error"):
        self.rank, self.step, self.kind = rank, step, kind

    def transform_model(self, model):
        self.act(0)
        return model

    def after_step(self, module, optimizer):
        self.act(module.steps_done)

    def act(self, step):
        if step != self.step or self.rank not in (-1, int(os.environ["RANK"])):
            return
        if self.kind == "warning":
            warnings.warn("a rank has\\nits own view")
        elif self.kind == "slow":
            time.sleep(3600)
        else:
            kinds = {"error": ValueError, "memory": MemoryError, "mistake": RecipeError, "end": SystemExit}
            raise kinds[self.kind]("told by the rank" if self.kind != "end" else 3)
"""


STEP = {  # the first of three processes of srun's
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "3", "SLURM_NNODES": "3"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
}


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path):
    """What a failed test has started trains no further."""
    here.cache_clear()
    yield
    here.cache_clear()
    for number in descendants(tmp_path)[1]:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@pytest.fixture
def faulty(tmp_path):
    """Words that add a technique with which one rank fails, and where Python finds it."""
    package = tmp_path / "packages" / "faulty_recipes"
    for folder in (package / "regularizer", package / "conf" / "regularizer"):
        folder.mkdir(parents=True)
    (package / "regularizer" / "faulty.py").write_text(FAULTY)
    target = "faulty_recipes.regularizer.faulty.Faulty"
    (package / "conf" / "regularizer" / "faulty.yaml").write_text(
        f"# Faulty.\nfaulty:\n  _target_: {target}\n  rank: 1\n  step: 3\n  kind: error\n"
    )
    make_entry_points(tmp_path / "packages", "faulty_recipes", faulty="faulty_recipes.conf")

    def words(**values):
        return ["+regularizer=faulty", *(f"regularizer.faulty.{name}={value}" for name, value in values.items())]

    return words, {"PYTHONPATH": f"{ROOT}:{tmp_path / 'packages'}"}


def begin(line, cwd, **environment):
    """A process whose descendants can be told from others."""
    return subprocess.Popen(
        line,
        cwd=cwd,
        env=variables(TOLD_APART=str(cwd), **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def descendants(cwd):
    """The ranks that run there, by rank, and all processes, ended ones left out."""
    found, all_processes = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = dict(pair.split("=", 1) for pair in (path / "environ").read_text().split("\0") if "=" in pair)
            words, state = (path / "cmdline").read_text(), (path / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, UnicodeDecodeError):
            continue
        if environment.get("TOLD_APART") == str(cwd) and state != "Z":
            all_processes.append(int(path.name))
            if "train.py" in words and "RANK" in environment:
                found[int(environment["RANK"])] = int(path.name)
    return found, all_processes


def wait_until(condition, process, seconds=LIMIT):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def steps(folder, number=5):
    """A condition: whether the run has logged so many rows."""
    file = folder / "metrics.csv"
    return lambda: file.exists() and file.read_bytes().count(b"\n") > number


def end_of(process, cwd):
    """Exit code and what was said; no process may be left."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    print(out, err)
    expect_nothing_left(cwd)
    return process.returncode, out, err


def ended(*words, cwd, **environment):
    """The same of a command whose start is not what is tested: it and its ranks are forks."""
    done = command("train.py", *words, cwd=cwd, forked=True, timeout=LIMIT, TOLD_APART=str(cwd), **environment)
    expect_nothing_left(cwd)
    return done.returncode, done.stdout, done.stderr


def expect_nothing_left(cwd):
    end = time.monotonic() + 20  # loggers end by themselves
    while (left := descendants(cwd)[1]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_rank_ends_the_run_and_is_told_in_a_line(tmp_path, number):
    process = begin(arguments("train.py", *ENDLESS, "hydra.run.dir=mine"), tmp_path)
    wait_until(steps(tmp_path / "mine"), process)
    os.kill(descendants(tmp_path)[0][number], signal.SIGKILL)
    code, _, err = end_of(process, tmp_path)
    line = f"rank {number}: killed by signal 9 (is there enough memory?)"
    assert code == 1 and err == f"error: {line}; log {tmp_path / 'mine' / 'train.log'}\n"
    assert result(tmp_path / "mine")["status"] == "failed" and result(tmp_path / "mine")["error"] == line
    (told,) = [line for line in (tmp_path / "mine" / "train.log").read_text().splitlines() if "killed by signal 9" in line]
    assert told.startswith(f"rank {number}: ") and "ERROR killed by signal 9" in told
    assert read(tmp_path / "mine", Catalogue()).status == "failed"
    assert not (tmp_path / "mine" / "errors").exists()


@pytest.mark.slow
def test_ranks_whose_command_was_killed_save_and_end(tmp_path):
    process = begin(arguments("train.py", *ENDLESS, "hydra.run.dir=mine"), tmp_path)
    wait_until(steps(tmp_path / "mine"), process)
    process.kill()
    end_of(process, tmp_path)
    assert result(tmp_path / "mine")["status"] == "stopped"
    done = command("train.py", "resume=mine", f"max_steps={result(tmp_path / 'mine')['steps'] + 3}", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and f"going on from step {result(tmp_path / 'mine')['steps'] - 3}" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "code", "told"),
    [
        ({"kind": "error"}, 1, "rank 1: told by the rank; log "),
        ({"kind": "memory", "rank": 0}, 1, "rank 0: out of memory: try data.batch_size="),
        ({"kind": "mistake"}, 2, "told by the rank\n"),
        ({"kind": "mistake", "rank": -1, "step": 0}, 2, "told by the rank\n"),  # both say so, and it is told once
        ({"kind": "error", "step": 0}, 1, "rank 1: told by the rank; log "),  # rank 0 waits for it, without a time limit
        ({"kind": "end", "rank": 0}, 1, "rank 0: "),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_the_error_of_the_rank_that_failed_is_told(tmp_path, faulty, values, code, told):
    words, environment = faulty
    line = [*words(**values), *ENDLESS, "hydra.run.dir=mine"]
    if values["kind"] == "end" or values.get("step") == 0:
        found, _, err = end_of(begin(arguments("train.py", *line), tmp_path, **environment), tmp_path)
    else:
        found, _, err = ended(*line, cwd=tmp_path, **environment)
    assert found == code and err.startswith(f"error: {told}") and len(err.splitlines()) == 1
    if values.get("step") != 0:
        assert (
            result(tmp_path / "mine")["status"] == "failed" and told.split(";")[0].strip() in result(tmp_path / "mine")["error"]
        )
    if values["kind"] == "error":
        assert "rank 1: ValueError: told by the rank" in (tmp_path / "mine" / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", ["training", "loading"])
def test_a_stopped_run_of_two_ranks_is_saved_once_and_goes_on(tmp_path, name, moment):
    process = begin(arguments("train.py", *ENDLESS, "hydra.run.dir=mine"), tmp_path)
    wait_until(steps(tmp_path / "mine") if moment == "training" else lambda: len(descendants(tmp_path)[0]) == 2, process)
    process.send_signal(signal.Signals[name])
    code, out, err = end_of(process, tmp_path)
    assert code == 128 + signal.Signals[name]
    assert out.count(f"stopped by {name} at step") == 1 and err.count("stopping after this step") == 1 and "Trace" not in err
    assert out.count("is saved") == 1
    left = result(tmp_path / "mine")
    assert left["status"] == "stopped" and left["stopped_by"] == name and (left["steps"] > 0 or moment == "loading")
    code, out, err = ended("resume=mine", f"max_steps={left['steps'] + 2}", cwd=tmp_path)
    assert code == 0 and f"going on from step {left['steps']}" in out
    words = [word.replace("1000000", str(left["steps"] + 2)) for word in ENDLESS]
    whole = command("train.py", *words, "hydra.run.dir=whole", cwd=tmp_path, forked=True)
    assert whole.returncode == 0 and result(tmp_path / "mine")["metrics"] == result(tmp_path / "whole")["metrics"]
    rows, expected = ((tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("mine", "whole"))
    assert rows == expected


@pytest.mark.slow
def test_a_second_ctrl_c_ends_ranks_that_do_not_listen(tmp_path, faulty):
    words, environment = faulty
    process = begin(arguments("train.py", *words(kind="slow"), *ENDLESS, "hydra.run.dir=mine"), tmp_path, **environment)
    wait_until(steps(tmp_path / "mine", 1), process)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    code, _, err = end_of(process, tmp_path)
    assert code == 130 and "Trace" not in err and result(tmp_path / "mine")["status"] == "stopped"


@pytest.mark.slow
def test_every_rank_tells_its_warnings(tmp_path, faulty):
    words, environment = faulty
    code, _, _ = ended(*words(kind="warning"), *TWO, "max_steps=5", "hydra.run.dir=mine", cwd=tmp_path, **environment)
    lines = (tmp_path / "mine" / "train.log").read_text().splitlines()
    assert code == 0 and all(line.startswith(("rank 0: ", "rank 1: ")) for line in lines)
    (warning,) = [number for number, line in enumerate(lines) if "a rank has" in line]
    assert lines[warning].startswith("rank 1: ") and lines[warning + 1] == "rank 1: its own view"
    assert sum(" started: " in line for line in lines) == 1


@pytest.mark.slow
def test_the_numbers_of_several_devices(tmp_path):
    assert mistake(*TWO, "data.batch_size=25", cwd=tmp_path, forked=True).endswith(
        "a step of 25 samples cannot be cut into 2 devices × 1 parts: type data.batch_size=24 or data.batch_size=26"
    )
    words = ["model=linear", "max_steps=4", "data.batch_size=24", "trainer.accumulate_grad_batches=2"]
    code, out, _ = ended(*TWO, *words, "hydra.run.dir=mine", cwd=tmp_path)
    assert code == 0 and "2 devices: each step takes 48 samples, 24 on each in 2 parts\n" in out
    left = result(tmp_path / "mine")
    assert {name: left[name] for name in ("devices", "nodes", "samples_per_step")} == {
        **{"devices": 2, "nodes": 1},
        "samples_per_step": 48,
    }
    done = command("evaluate.py", "mine", cwd=tmp_path, forked=True)  # on one device
    assert done.returncode == 0 and done.stdout.count("folder   mine") == 1
    assert f"{left['metrics']['test/loss']:.4f}" in done.stdout
    refused = command("evaluate.py", "mine", "trainer.devices=2", cwd=tmp_path, forked=True)
    assert refused.returncode == 2 and "evaluate.py tests on one device: leave out trainer.devices=2" in refused.stderr


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_that_give_nothing_back_are_refused(tmp_path, strategy):
    told = mistake(*TWO, f"trainer.strategy={strategy}", cwd=tmp_path, forked=True)
    assert f"trainer.strategy={strategy}" in told and "type trainer=ddp" in told


@pytest.mark.slow
def test_the_commands_about_batch_size_and_learning_rate(tmp_path):
    section = (ROOT / "docs" / "cluster.md").read_text().partition("## Batch size and learning rate")[2]
    lines = section.partition("```bash\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines):
        script, *words = shlex.split(line, comments=True)[1:]
        done = command(script, *words, *TWO, "max_epochs=1", f"hydra.run.dir={number}", cwd=tmp_path, forked=True)
        assert done.returncode == 0 and "2 devices: each step takes 256 samples, 128 on each" in done.stdout


# torchrun


@pytest.mark.slow
def test_torchrun_equals_the_command_alone(tmp_path):
    words = [*TWO, "model=mlp", "max_steps=20"]
    code, out, _ = end_of(begin(torchrun("train.py", *words, "hydra.run.dir=torchrun"), tmp_path), tmp_path)
    assert code == 0 and out.count("best step") == 1
    assert command("train.py", *words, "hydra.run.dir=own", cwd=tmp_path, forked=True).returncode == 0
    assert result(tmp_path / "torchrun")["metrics"] == result(tmp_path / "own")["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_of_torchrun_that_is_killed(tmp_path, number):
    process = begin(torchrun("train.py", *ENDLESS, "hydra.run.dir=mine"), tmp_path)
    wait_until(steps(tmp_path / "mine"), process)
    os.kill(descendants(tmp_path)[0][number], signal.SIGKILL)
    code, _, err = end_of(process, tmp_path)
    line = f"rank {number}: ended without a word (is there enough memory?)"
    assert code == 1 and err.count(f"error: {line}; log ") == 1 and "Connection closed" not in err
    assert result(tmp_path / "mine")["status"] == "failed" and result(tmp_path / "mine")["error"] == line


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["error", "mistake"])
def test_a_rank_of_torchrun_that_fails(tmp_path, faulty, kind):
    words, environment = faulty
    process = begin(torchrun("train.py", *words(kind=kind), *ENDLESS, "hydra.run.dir=mine"), tmp_path, **environment)
    code, _, err = end_of(process, tmp_path)
    line = "told by the rank" if kind == "mistake" else "rank 1: told by the rank"
    assert code == 1 and err.count(f"error: {line}; log") == 1 and "Connection closed" not in err
    assert result(tmp_path / "mine")["status"] == "failed" and result(tmp_path / "mine")["error"] == line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_torchrun_that_is_stopped_saves_once(tmp_path, name):
    process = begin(torchrun("train.py", *ENDLESS, "hydra.run.dir=mine"), tmp_path)
    wait_until(steps(tmp_path / "mine"), process)
    process.send_signal(signal.Signals[name])
    _, out, err = end_of(process, tmp_path)
    assert out.count(f"stopped by {name} at step") == 1 and err.count("stopping after this step") == 1
    assert result(tmp_path / "mine")["status"] == "stopped" and (tmp_path / "mine" / "checkpoints" / "last.ckpt").exists()


def test_torchrun_does_not_start_a_sweep(tmp_path):
    process = begin(torchrun("train.py", "-m", *TWO, "seed=0,1"), tmp_path)
    code, _, err = end_of(process, tmp_path)
    assert code and "a sweep starts its jobs itself" in err and not list(tmp_path.rglob("*.ckpt"))


# Sweeps


@pytest.mark.slow
def test_a_killed_rank_fails_its_job_only(tmp_path, faulty):
    process = begin(
        arguments("train.py", "-m", *TWO, "model=linear", "trainer.log_every_n_steps=3", "max_steps=1000000,3", "sweep=mine"),
        tmp_path,
    )
    wait_until(steps(tmp_path / "mine" / "0"), process)
    _, second = sorted(below([process.pid], 3))  # forks of the job, which is one of the process that has imported all
    os.kill(second, signal.SIGKILL)
    code, _, err = end_of(process, tmp_path)
    assert code == 1 and "error: 1 of 2 jobs failed:" in err and "rank 1: killed by signal 9" in err
    assert [result(tmp_path / "mine" / name)["status"] for name in "01"] == ["failed", "finished"]


# The parts


def fail(folder, rank, error, wait=0.02):
    """A rank that fails, in a process of its own, since it ends it; its exit code."""
    code = (
        f"from recipes.launch import failures; import pathlib; failures.fail(pathlib.Path({str(folder)!r}), {error}, 3, False)"
    )
    inside = STEP | {"SLURM_PROCID": str(rank)}
    words = variables(**inside, SLURMD_NODENAME=f"n{rank}", PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], env=words, capture_output=True, timeout=LIMIT)
    time.sleep(wait)
    return done.returncode


def test_the_first_real_error_is_found(tmp_path):
    lost = "RuntimeError('gloo: Connection closed by peer [10.0.0.1]')"
    numbers = random.sample(range(3), 3)
    assert fail(tmp_path, numbers[0], lost) == 3
    assert (
        failures.first_error(tmp_path, "") == f"rank {numbers[0]} on n{numbers[0]}: gloo: Connection closed by peer [10.0.0.1]"
    )
    killed = "0: fine\nsrun: error: node2: task 1: Killed\nsrun: error: node1: task 0: Exited with exit code 1\n"
    assert failures.first_error(tmp_path, killed) == "rank 1 on node2: killed (is there enough memory?)"
    assert fail(tmp_path, numbers[1], "ValueError('wrong\\nnumber')") == 3
    assert fail(tmp_path, numbers[2], "ValueError('later')") == 3
    assert failures.first_error(tmp_path, killed) == f"rank {numbers[1]} on n{numbers[1]}: wrong number"
    failures.forget_errors(tmp_path)
    assert failures.first_error(tmp_path, "") == ""


@pytest.mark.parametrize("failed", [True, False])
def test_a_rank_that_is_asked_to_end_does_so_at_once_if_another_has_failed(tmp_path, failed):
    code = (
        f"import pathlib, time; from recipes.launch import failures; from recipes.launch import slurm_job as slurm; slurm.listen(); failures.end_with_others(pathlib.Path({str(tmp_path)!r}))\n"
        "print('ready', flush=True)\nwhile not slurm.received: time.sleep(0.1)\nprint('heard', flush=True)\ntime.sleep(1000)"
    )
    inside = STEP | {"PYTHONPATH": str(ROOT)}
    if not failed:  # but at an earlier start
        inside["SLURM_RESTART_COUNT"] = "1"
    assert fail(tmp_path, 1, "ValueError('wrong')") == 3
    process = subprocess.Popen([sys.executable, "-c", code], env=variables(**inside), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        if failed:
            assert process.wait(LIMIT) == 1
        else:
            assert process.stdout.readline() == "heard\n" and process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_only_what_was_said_at_an_earlier_start_is_forgotten(tmp_path, monkeypatch):
    assert fail(tmp_path, 1, "ValueError('wrong')") == 3
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    here.cache_clear()
    failures.forget_earlier(tmp_path)
    assert "wrong" in failures.first_error(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    here.cache_clear()
    failures.forget_earlier(tmp_path)
    assert failures.first_error(tmp_path) == "" and not list(tmp_path.iterdir())


def test_the_result_of_a_run_that_goes_on_is_left_alone(tmp_path):
    file = tmp_path / "result.json"
    file.write_text('{"status": "running"}')
    before = file.stat().st_mtime_ns
    failures.write_failure(tmp_path, "another process trains here", before)
    assert json.loads(file.read_text()) == {"status": "running"}
    os.utime(file, ns=(before, before + 1))  # as one that this start has written
    failures.write_failure(tmp_path, "wrong number", before)
    assert json.loads(file.read_text()) == {"format": FORMAT, "status": "failed", "error": "wrong number"}


def test_a_machine_that_has_one_device_starts_nothing(monkeypatch):
    trainer = {"devices": 1, "num_nodes": 1, "accelerator": "cpu", "oversubscribe": True}
    assert ranks.to_start({"trainer": trainer, "explain": False}) == 0
    assert ranks.to_start({"trainer": trainer | {"devices": 3}, "explain": False}) == 3
    assert ranks.to_start({"trainer": trainer | {"devices": "auto"}, "explain": False}) == 0
    assert ranks.to_start({"trainer": trainer | {"devices": 3}, "explain": True}) == 0
    together = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in together.items():  # something has started this process as one of several
        monkeypatch.setenv(name, value)
    here.cache_clear()
    assert ranks.to_start({"trainer": trainer | {"devices": 3}, "explain": False}) == 0


def test_only_a_process_that_was_started_by_another_has_a_lifeline(monkeypatch):
    monkeypatch.delenv(LIFELINE, raising=False)
    before = threading.active_count()
    ranks.end_with_parent()
    assert threading.active_count() == before


def test_more_processes_than_cores_are_refused_unless_they_are_meant(monkeypatch):
    many = 10 * ranks.cores_here()
    trainer = {"devices": many, "num_nodes": 1, "accelerator": "auto", "oversubscribe": False}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for accelerator in ("auto", "cpu"):
        with pytest.raises(
            RecipeError, match=rf"trainer.devices={many}: this machine has .* CPU core.*; type trainer.devices={many // 10}, "
        ):
            ranks.to_start({"trainer": trainer | {"accelerator": accelerator}, "explain": False})
    assert ranks.to_start({"trainer": trainer | {"oversubscribe": True}, "explain": False}) == many
    assert ranks.to_start({"trainer": trainer, "explain": True}) == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(many))))  # then they are processes of GPUs
    assert ranks.to_start({"trainer": trainer, "explain": False}) == many


def test_ports_of_runs_that_wait_at_a_time_differ():
    held = [watch.hold_port() for _ in range(300)]
    assert len({each.getsockname()[1] for each in held}) == len(held)
    for each in held:
        each.close()
