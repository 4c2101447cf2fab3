"""Sweeps as users start them: real processes, real signals."""

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from plugins.errors import RecipeError
from recipes.cli.words import expect_search_packages
from recipes.launch import sweep as module
from recipes.launch.display import duration
from recipes.launch.gpus import accelerators, deal
from recipes.launch.job import Job, can_go_on
from recipes.launch.sweep import Sweep
from recipes.store.files import hold
from recipes.store.plan import Plan, sweep_of
from tests.command import LIMIT, ROOT, SMALL, arguments, as_at_home, command, mistake, variables, wait_until
from tests.slowly import WORD, slowly

ENDLESS = ("model=linear", "max_steps=1000000", "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu")


def results(folder):
    """What the jobs of a sweep have left, by the name of their folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/result.json")}


# The commands


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        process = subprocess.Popen(
            arguments("train.py", "-m", *SMALL, "seed=0,1", "sweep=disk/mine"),
            **{"cwd": tmp_path, "env": variables(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        )
        wait_until((disk / "mine" / "0" / "result.json").exists, process)
        with open(disk / "mine" / "sweep.log", "a") as file:
            file.write("-" * (4095 - file.tell() % 4096) + "\n")  # the rest of a page is room
        with open(disk / "ballast", "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"0" * 4096)
        printed, said = process.communicate(timeout=LIMIT)
        # the first one may have ended before the disk was full: then the comparison finds no room either, and says so before
        told = [line for line in said.splitlines() if line.startswith("error: ")]
        assert re.fullmatch(r"error: [12] of 2 jobs failed:", told[-1]), said
        assert all("cannot be written (No space left on device)" in line for line in told[:-1]), said
        assert process.returncode == 1 and "Traceback" not in said
        assert "sweep.log cannot be written (No space left on device)" in printed + said
        assert as_at_home(said).splitlines()[-1] == "to run them again: python train.py -m sweep=disk/mine"
        (disk / "ballast").unlink()
        again = command("train.py", "-m", "sweep=disk/mine", cwd=tmp_path, forked=True)
        assert again.returncode == 0
        assert {name: left["status"] for name, left in results(disk / "mine").items()} == {"0": "finished", "1": "finished"}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_sweep_goes_on_after_a_failed_job_and_compares(tmp_path):
    words = ["preprocessing.per=wrong,channel,feature", "name=job-${hydra:job.num}"]  # which is found by the job only
    done = command("train.py", "-m", *SMALL, *words, "sweep=mine", "hydra.launcher.n_jobs=2", cwd=tmp_path, forked=True)
    assert done.returncode == 1
    *_, summary, job, again = done.stderr.splitlines()
    assert summary == "error: 1 of 3 jobs failed:"
    assert "job 0" in job and "preprocessing.per=wrong" in job and "per must be" in job and "mine/0" in job
    assert again.endswith("python train.py -m sweep=mine")
    left = results(tmp_path / "mine")
    assert [left[name]["status"] for name in "012"] == ["failed", "finished", "finished"]
    assert "per must be" in left["0"]["error"] and left["1"]["config"]["name"] == "job-1"
    lines = [line for line in done.stdout.splitlines() if line.startswith("job ")]
    assert len(lines) == 3 and "preprocessing.per=channel  val/acc" in "\n".join(lines)
    for name in ("compare.csv", "compare.png", "report.html"):
        assert (tmp_path / "mine" / name).stat().st_size
    assert "failed" in done.stdout and str(Path("mine") / "report.html") in done.stdout


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "mine"
    words = ["model=mlp", "max_epochs=40", "logger=[]", "trainer.accelerator=cpu", "+regularizer=[],[dropout]", "seed=3"]
    sweep = arguments("train.py", "-m", *words, WORD, "sweep=mine")
    process = subprocess.Popen(sweep, cwd=tmp_path, env=variables(**slowly(tmp_path, 0.1)))
    wait_until(lambda: (folder / "1" / "checkpoints" / "last.ckpt").exists(), process)
    finished = (folder / "0" / "result.json").read_bytes()
    assert json.loads(finished)["status"] == "finished"
    process.kill()
    process.wait()
    done = command("train.py", "sweep=mine", cwd=tmp_path, **slowly(tmp_path))
    assert done.returncode == 0
    assert "job 0  +regularizer=[]  is finished: val/acc" in done.stdout
    assert (folder / "0" / "result.json").read_bytes() == finished
    output = (folder / "1" / "output.log").read_text()
    assert "stopped by SIGTERM" in output and "going on from step" in output  # the job had noticed that its sweep was gone
    whole = command("train.py", *words[:4], "+regularizer=dropout", "seed=3", "hydra.run.dir=whole", cwd=tmp_path, forked=True)
    assert whole.returncode == 0
    assert results(folder)["1"]["metrics"] == results(tmp_path)["whole"]["metrics"]


@pytest.mark.slow
def test_a_sweep_grows(tmp_path):
    assert command("train.py", "-m", *SMALL, "seed=0,1", "sweep=mine", cwd=tmp_path, forked=True).returncode == 0
    before = {name: (tmp_path / "mine" / name / "result.json").stat().st_mtime_ns for name in "01"}
    done = command("train.py", "-m", *SMALL, "optimizer=adam,sgd", "seed=0,1", "sweep=mine", cwd=tmp_path, forked=True)
    assert done.returncode == 0  # other words: all are new, and none takes the folder of an old one
    assert sorted(results(tmp_path / "mine")) == list("012345")
    for name, when in before.items():
        assert (tmp_path / "mine" / name / "result.json").stat().st_mtime_ns == when
    assert {(result["seed"], result["techniques"][-1]) for result in results(tmp_path / "mine").values()} == {
        (seed, optimizer) for seed in (0, 1) for optimizer in ("adam", "sgd")
    }


@pytest.mark.slow
def test_ctrl_c_ends_the_jobs_in_flight_and_the_sweep(tmp_path):
    words = [*ENDLESS, "seed=0,1,2", "hydra.launcher.n_jobs=2", "sweep=mine"]
    process = subprocess.Popen(
        arguments("train.py", "-m", *words), cwd=tmp_path, env=variables(), stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list((tmp_path / "mine").glob("[01]/config.yaml"))) == 2, process)  # the last sign of a start
    second = command("train.py", "sweep=mine", cwd=tmp_path, forked=True)  # while the first one works
    assert second.returncode == 2 and "another process works on the sweep in mine" in second.stderr
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "stopped by SIGINT; 0 jobs are finished" in out and "python train.py -m sweep=mine" in as_at_home(out)
    assert {name: result["status"] for name, result in results(tmp_path / "mine").items()} == {"0": "stopped", "1": "stopped"}


@pytest.mark.slow
def test_a_run_folder_takes_one_process(tmp_path):
    words = [*ENDLESS, "hydra.run.dir=mine"]
    process = subprocess.Popen(arguments("train.py", *words), cwd=tmp_path, env=variables(), stdout=subprocess.DEVNULL)
    wait_until((tmp_path / "mine" / "config.yaml").exists, process)
    refused = command("train.py", "resume=mine", cwd=tmp_path, forked=True)
    process.kill()
    process.wait()
    assert refused.returncode == 2 and "another process trains in mine" in refused.stderr


def test_explaining_a_sweep_trains_nothing(tmp_path):
    done = command("train.py", "-m", *SMALL, "optimizer=adam,sgd", "explain=true", "sweep=mine", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "update     adam lr=" in done.stdout and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_terminal_shows_the_jobs_in_flight(tmp_path):
    words = ["model=mlp", "max_epochs=20", "logger=[]", "trainer.accelerator=cpu", "seed=0,1", "sweep=mine"]
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        arguments("train.py", "-m", *words, "hydra.launcher.n_jobs=2"),
        cwd=tmp_path,
        env=variables(TERM="xterm", COLUMNS="140"),
        stdout=terminal,
    )
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # the terminal is closed
        while part := os.read(controller, 65536):
            shown += part
    assert process.wait(LIMIT) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"sweep .* 0/2", text) and re.search(r"job 1  seed=1 .* \d+/20 .*train/loss 0\.\d+", text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-m", "sweep=none"], "none is no sweep: looked for jobs.yaml"),
        (["-m", "seed=0,1", "sweep=there"], "there is there, and is no sweep"),
        (["-m", "seed=0,1", "sweep=broken"], "jobs.yaml is not what a sweep writes"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs must be a whole number"),
        (["-m", "seed=0,1", "hydra.launcher.n_job=2"], "n_job"),
        (
            ["-m", "seed=0,1", "hydra/launcher=basic"],
            "would not keep the jobs of a sweep apart, nor know which are finished: type hydra/launcher=processes",
        ),
        (["-m", "seed=0,1", 'hydra/launcher="basic"'], "type hydra/launcher=processes"),
        (["-m", "seed=0,1", "resume=there"], "resume cannot be part of a sweep"),
        (["-m", "seed=0,1", "hydra.sweep.dir=there"], "there is there, and is no sweep"),
        (["-m", "seed=0,1", "hydra.sweep.subdir=.."], "the folder of a job must be inside of the sweep's"),
        (["-m", "seed=0,1", "hydra.sweep.subdir=."], "the folder of a job must be inside of the sweep's"),
        (["-m", "seed=0,1", "sweep=a,b"], "expected one folder"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=2,3"], "expected one value"),
    ],
)
def test_mistakes(tmp_path, words, told):
    for name, content in (("there/0/a.txt", "x"), ("broken/jobs.yaml", "words: 3")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    assert told in mistake(*words, cwd=tmp_path, forked=True)
    assert (tmp_path / "there" / "0" / "a.txt").read_text() == "x"


@pytest.mark.slow
def test_optuna_looks_for_the_largest_accuracy_and_goes_on(tmp_path):
    pytest.importorskip("optuna")
    words = [*SMALL[1:], "model=mlp", "+regularizer=[dropout]", "optimizer.lr=interval(0.001,1)", "hydra/sweeper=optuna"]
    done = command("train.py", "-m", *words, "hydra.sweeper.n_trials=2", "sweep=mine", cwd=tmp_path, forked=True)
    assert done.returncode == 0
    first = results(tmp_path / "mine")
    assert sorted(first) == ["0", "1"]
    done = command("train.py", "sweep=mine", "hydra.sweeper.n_trials=3", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and done.stdout.count("is finished: val/acc") == 2
    after = results(tmp_path / "mine")
    assert sorted(after) == ["0", "1", "2"] and all(after[name] == first[name] for name in first)
    rates = [result["config"]["optimizer"]["lr"] for result in after.values()]
    assert len(set(rates)) == 3 and all(0.001 <= rate <= 1 for rate in rates)
    best = max(result["metrics"]["val/acc"] for result in after.values())
    assert f"(val/acc {best:.4f} in the search" in done.stdout
    assert f"best_value: {best}" in (tmp_path / "mine" / "optimization_results.yaml").read_text()
    done = command(
        "train.py",
        "-m",
        *words,
        "trainer.monitor=val/loss",
        "hydra.sweeper.n_trials=1",
        "sweep=loss",
        cwd=tmp_path,
        forked=True,
    )
    (loss,) = (result["metrics"]["val/loss"] for result in results(tmp_path / "loss").values())
    assert done.returncode == 0 and f"(val/loss {loss:.4f} in the search)" in done.stdout  # the smallest is looked for
    further = ("trainer.monitor=val/loss", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=1")
    done = command("train.py", "-m", *words, *further, cwd=tmp_path, forked=True)
    assert done.returncode == 2 and "hydra.sweeper.direction=minimize" in done.stderr
    done = command(
        "train.py", "-m", *words, "data=npz", "data.path=nowhere.npz", "hydra.sweeper.n_trials=2", cwd=tmp_path, forked=True
    )
    assert done.returncode == 1 and "error: 1 of 1 jobs failed:" in done.stderr and "Traceback" not in done.stderr
    assert "no further trial is begun: 1 of 1 have failed" in done.stdout


@pytest.mark.slow
def test_jobs_on_two_devices_are_one_run_each(tmp_path):
    words = ["-m", "model=mlp", "max_steps=30", "trainer.accelerator=cpu", "trainer.progress=false", "seed=0,1"]
    two = command("train.py", *words, "trainer=ddp", "trainer.devices=2", "sweep=two", cwd=tmp_path, forked=True)
    one = command("train.py", *words, "logger=csv", "sweep=one", cwd=tmp_path, forked=True)
    assert two.returncode == one.returncode == 0
    assert sorted(path.name for path in (tmp_path / "two").iterdir() if path.is_dir()) == ["0", "1"]
    for name, expected in results(tmp_path / "one").items():
        found = results(tmp_path / "two")[name]
        assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-4) and found["steps"] == 30
        assert len(list((tmp_path / "two" / name / "wandb").glob("offline-run-*"))) == 1
    assert "wandb    group two" in two.stdout


@pytest.mark.slow
def test_without_words_every_job_that_was_ever_asked_for_goes_on(tmp_path):
    folder = tmp_path / "a b"
    assert command("train.py", "-m", *SMALL, "seed=0,1", 'sweep="a b"', cwd=tmp_path, forked=True).returncode == 0
    assert "python train.py -m 'sweep=\"a b\"'" in (folder / "jobs.yaml").read_text()
    shutil.rmtree(folder / "1")
    done = command("train.py", "-m", *SMALL, "seed=5", 'sweep="a b"', "++hydra.launcher.n_jobs=2", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and sorted(results(folder)) == ["0", "2"]
    done = command("train.py", 'sweep="a b"', cwd=tmp_path, forked=True)
    assert done.returncode == 0 and sorted(results(folder)) == ["0", "1", "2"]
    assert [result["seed"] for _, result in sorted(results(folder).items())] == [0, 1, 5]
    assert done.stdout.count("  is finished: ") == 2


@pytest.mark.slow
def test_a_hangup_saves_the_jobs_and_nohup_keeps_them(tmp_path):
    words = [*ENDLESS, "seed=0,1", "sweep=mine"]
    process = subprocess.Popen(
        arguments("train.py", "-m", *words),
        cwd=tmp_path,
        env=variables(),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests themselves may run under nohup
    )
    wait_until((tmp_path / "mine" / "0" / "config.yaml").exists, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(LIMIT) == 128 + signal.SIGHUP
    (result,) = results(tmp_path / "mine").values()
    assert result["status"] == "stopped"
    assert (tmp_path / "mine" / "0" / "checkpoints" / "last.ckpt").exists() == (result["steps"] > 0)
    words = [*SMALL, "seed=0,1", "sweep=other"]
    process = subprocess.Popen(
        ["nohup", *arguments("train.py", "-m", *words)], cwd=tmp_path, env=variables(), stdout=subprocess.DEVNULL
    )
    wait_until((tmp_path / "other" / "0" / "output.log").exists, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(LIMIT) == 0 and len(results(tmp_path / "other")) == 2


@pytest.mark.slow
def test_a_sweep_goes_on_when_nobody_reads(tmp_path):
    line = " ".join(map(shlex.quote, arguments("train.py", "-m", *SMALL, "seed=0,1,2", "sweep=mine")))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -1"], cwd=tmp_path, env=variables(), capture_output=True, text=True, timeout=LIMIT
    )
    assert "Traceback" not in done.stderr and done.stdout.count("\n") == 1
    wait_until((tmp_path / "mine" / "report.html").exists)
    assert {result["status"] for result in results(tmp_path / "mine").values()} == {"finished"}


def test_a_search_without_its_packages_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr("recipes.cli.words.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install"):
        expect_search_packages(["hydra/sweeper=optuna"])
    expect_search_packages(["seed=0,1"])


# The parts

JOB = """
import json, os, sys
folder = next(word for word in sys.argv if word.startswith("hydra.run.dir=")).partition("=")[2].strip('"')
seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
result = {"status": "finished", "metrics": {}, "session": os.getsid(0) == os.getpid(), "words": sys.argv[1:], **seen}
json.dump(result, open(folder + "/result.json", "w"))
"""


def sweep_with(folder, *jobs, n_jobs=1, code=JOB):
    """A sweep of small processes that leave a result, and its jobs: their words, one folder for the same words."""
    sweep = Sweep(folder, Plan(["seed=0,1"]), [sys.executable, "-c", code], n_jobs)
    made = [Job(n, folder / sweep.plan.folder_for([words], str(n))[0], [words], words) for n, words in enumerate(jobs)]
    return sweep, made


def test_jobs_of_the_same_words_are_one(tmp_path):
    sweep, jobs = sweep_with(tmp_path, "seed=0", "seed=1", "seed=0", n_jobs=3)
    sweep.run(jobs)
    assert not sweep.failed and jobs[2].result is jobs[0].result and jobs[1].result["words"][0] == "seed=1"
    log = (tmp_path / "sweep.log").read_text()
    assert log.count("started in") == 2
    sweep.run([Job(3, jobs[0].folder, ["seed=0"], "seed=0")])  # asked for again, later
    assert (tmp_path / "sweep.log").read_text().count("started in") == 2


@pytest.mark.parametrize(
    ("name", "content"), [("config.yaml", b"a: ["), ("config.yaml", b""), ("config.yaml", b"- a"), ("result.json", b"[]")]
)
def test_a_job_with_a_file_that_no_run_writes_is_left_alone(tmp_path, name, content):
    sweep, jobs = sweep_with(tmp_path, "seed=0", "seed=1")
    (jobs[1].folder / "checkpoints").mkdir(parents=True)
    (jobs[1].folder / "checkpoints" / "last.ckpt").write_bytes(b"garbage")
    (jobs[1].folder / name).write_bytes(content)
    with pytest.raises(RecipeError, match=name):
        sweep.run(jobs)
    assert not (jobs[0].folder / "result.json").exists()  # told before any job is started
    assert (jobs[1].folder / name).read_bytes() == content and (jobs[1].folder / "checkpoints" / "last.ckpt").exists()


def test_broken_jobs_are_run_again(tmp_path):
    """What cannot be gone on with is started anew; what is not the run's own is left alone."""
    sweep, (job,) = sweep_with(tmp_path, "seed=0")
    (job.folder / "checkpoints").mkdir(parents=True)
    (job.folder / "config.yaml").write_text("seed: 0\n")
    with zipfile.ZipFile(job.folder / "checkpoints" / "last.ckpt", "w") as file:
        file.writestr("a", "b")
    (job.folder / "notes.txt").write_text("mine")
    assert can_go_on(job.folder)
    (job.folder / "checkpoints" / "last.ckpt").write_bytes(b"garbage")
    assert not can_go_on(job.folder)
    sweep.run([job])
    assert not job.error and job.result["words"][0] == "seed=0" and not (job.folder / "checkpoints").exists()
    assert (job.folder / "notes.txt").read_text() == "mine"


def test_a_job_that_another_process_trains_holds_up_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 2.0)
    sweep, jobs = sweep_with(tmp_path, "seed=0", "seed=1")
    jobs[0].folder.mkdir()
    with hold(jobs[0].folder / "train.log", "trains"):
        sweep.run(jobs)
    assert "another process trains in" in jobs[0].error and jobs[1].result["status"] == "finished"
    jobs[0].error = ""
    sweep.run(jobs[:1])
    assert jobs[0].result["status"] == "finished"


DOES = 'import os, sys; os.chdir(sys.argv[2].partition("=")[2].strip(chr(34))); exec(sys.argv[1])'


def test_a_job_is_explained_where_it_leaves_nothing_else_it_has_failed(tmp_path):
    left = {
        "print('told')": "",
        "os.remove('output.log')": "without a word",
        "open('result.json', 'w').write('{')": "result.json cannot be read",
        "open('result.json', 'w').write('{}')": "result.json is empty",
        "open('config.yaml', 'w').write('seed: 0')": "has left config.yaml",
        "os.mkdir('checkpoints')": "has left checkpoints",
    }
    sweep, jobs = sweep_with(tmp_path, *left, n_jobs=6, code=DOES)
    sweep.run(jobs)
    for job, told in zip(jobs, left.values(), strict=True):
        assert told in job.error and bool(job.error) == bool(told) == job.folder.exists()
        assert (job.folder.name in Plan.read(tmp_path).jobs) == bool(told)
    assert sweep.failed == jobs[1:]


def test_a_result_of_any_length_is_read(tmp_path):
    long = (
        "import json; json.dump({'status': 'finished', 'metrics': {}, 'events': ['x' * 2 * 10**6]}, open('result.json', 'w'))"
    )
    sweep, (job,) = sweep_with(tmp_path, long, code=DOES)
    sweep.run([job])
    assert not job.error and job.result["status"] == "finished"


def test_a_signal_that_comes_while_jobs_are_started_starts_no_other(tmp_path, monkeypatch):
    sweep, jobs = sweep_with(tmp_path, "seed=0", "seed=1", "seed=2", n_jobs=3, code="import time; time.sleep(600)")
    launch = Sweep._launch

    def interrupted(self, job, gpus):
        process = launch(self, job, gpus)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(Sweep, "_launch", interrupted)
    with pytest.raises(SystemExit) as ended:
        sweep.run(jobs)
    assert ended.value.code == 130 and [job.folder.exists() for job in jobs] == [True, False, False]


def test_a_foreign_file_is_no_sweep(tmp_path):
    (tmp_path / "jobs.yaml").write_text("program: train.py\nmethod: bayes\n")
    assert sweep_of(tmp_path / "run") is None
    Plan(["seed=0"], jobs={"a/b": ["seed=0"]}).write(tmp_path)
    assert sweep_of(tmp_path / "a" / "b")[0] == tmp_path and sweep_of(tmp_path / "a") is None
    for wrong in ("jobs: {0: null}", "jobs: {../x: [seed=0]}", "jobs: {/x: [seed=0]}", "jobs: {0: [1]}", "words: x"):
        (tmp_path / "jobs.yaml").write_text(f"words: []\nhydra: []\n{wrong}\n")
        with pytest.raises(RecipeError):
            Plan.read(tmp_path)


def test_each_job_gets_gpus_and_threads_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(3000), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sweep = Sweep(tmp_path, Plan(["seed=0,1"]), [sys.executable, "-c", JOB], n_jobs=-1)
    assert sweep.n_jobs == 3
    sweep.run([Job(number, tmp_path / str(number), [], "", devices) for number, devices in enumerate((1, 1, None))])
    assert not sweep.failed and all(job.result["session"] for job in sweep.jobs)
    assert [job.result["CUDA_VISIBLE_DEVICES"] for job in sweep.jobs] == [
        "4",
        "5",
        "4,5,GPU-6",
    ]  # the last one waits for all of them
    assert {job.result["OMP_NUM_THREADS"] for job in sweep.jobs} == {"1000"}  # of the cores that this process may use


@pytest.mark.parametrize(("n_jobs", "jobs_per_gpu", "most"), [(-1, 1, 1), (4, 2, 2), (2, 1, 2)])
def test_no_more_jobs_share_a_gpu_than_were_asked_for(tmp_path, monkeypatch, n_jobs, jobs_per_gpu, most):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    sweep = Sweep(tmp_path, Plan(["seed=0,1,2"]), [sys.executable, "-c", JOB], n_jobs, jobs_per_gpu=jobs_per_gpu)
    sweep.run([Job(number, tmp_path / str(number), [], "", 2) for number in range(3)])
    assert not sweep.failed
    log = [line.split()[4] for line in (tmp_path / "sweep.log").read_text().splitlines()]
    assert log[:most] == ["started"] * most and log[most] != "started"


@pytest.mark.parametrize(("devices", "most"), [((2, 2, 2), 2), ((8, 8), 1), ((None, 1, 2, 1), 3)])
def test_as_many_processes_as_cores_are_started_at_a_time(tmp_path, monkeypatch, devices, most):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    sweep = Sweep(tmp_path, Plan(["seed=0,1,2"]), [sys.executable, "-c", JOB], n_jobs=-1)
    sweep.run([Job(number, tmp_path / str(number), [], "", count) for number, count in enumerate(devices)])
    assert not sweep.failed and {job.result["OMP_NUM_THREADS"] for job in sweep.jobs} == {"1"}
    log = [line.split()[4] for line in (tmp_path / "sweep.log").read_text().splitlines()]
    assert log[:most] == ["started"] * most and log[most] != "started"


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_jobs_that_are_lost_with_the_process_that_they_were_forked_of_go_on_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "script.py").write_text(
        "import os, signal, time\n"
        "from recipes.launch import parent, warm\n"
        "warm.load = lambda: None\n"
        "parent.find()\n"
        "if warm.is_wanted():\n"
        "    warm.serve()\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(600)\n" + JOB
    )
    folder = tmp_path / "mine"
    sweep = Sweep(folder, Plan(["seed=0,1"]), [sys.executable, str(tmp_path / "script.py")], 2, start="warm")
    sweep.run([Job(number, folder / str(number), [f"seed={number}"], "") for number in range(2)])
    assert not sweep.failed and [job.result["status"] for job in sweep.jobs] == ["finished"] * 2
    log = (folder / "sweep.log").read_text()
    assert "job 0  was lost with the process that it was forked of, and goes on by itself" in log and "SIGKILL" not in log


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_gpus_are_dealt_evenly(wanted):
    gpus = ["0", "1", "2", "3"]
    taken = []
    for _ in range(8):
        taken.append(deal(gpus, taken, wanted))
        assert len(set(taken[-1])) == wanted
        load = [sum(gpu in each for each in taken) for gpu in gpus]
        assert max(load) - min(load) <= 1
    taken.remove(taken[2])
    freed = [gpu for gpu in gpus if sum(gpu in each for each in taken) == min(sum(g in each for each in taken) for g in gpus)]
    assert set(deal(gpus, taken, 1)) <= set(freed)
    assert deal([], [], 1) == [] and deal(gpus, [], None) == gpus and deal(gpus, [], 9) == gpus


def test_the_gpus_that_a_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert accelerators() == ["2", "3"]
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert accelerators() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "")
    assert accelerators() == []


def test_a_job_is_known_by_its_words(tmp_path):
    plan = Plan(["seed=0,1"], ["hydra.launcher.n_jobs=2"])
    assert [plan.folder_for([f"seed={seed}", "a=1"], str(seed)) for seed in (0, 1)] == [("0", True), ("1", True)]
    assert plan.folder_for(["a=1", "seed=1"], "0") == ("1", False)  # in any order
    assert plan.folder_for(["seed=2"], "0") == ("2", True)  # its number is taken by other words
    plan.write(tmp_path)
    assert vars(Plan.read(tmp_path)) == vars(plan)


def test_times_are_for_people():
    assert [duration(seconds) for seconds in (0.04, 59.94, 61, 3725)] == ["0.0 s", "59.9 s", "0:01:01", "1:02:05"]
