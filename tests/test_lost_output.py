"""What is printed never decides about a run: closed, full and broken outputs, and a terminal that is lost. Real processes."""

import fcntl
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress

import pytest
import yaml

from tests.command import ROOT, SMALL, arguments, command, variables

LIMIT = 240  # seconds
BAR = ["model=linear", "logger=csv", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]
ENDLESS = [*BAR, "max_steps=1000000"]


def shell(line, cwd, **environment):
    """An ended process of a shell, in which PYTHON stands for the interpreter."""
    line = line.replace("PYTHON ", f"{shlex.quote(sys.executable)} {ROOT}/")
    words = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(words, cwd=cwd, env=variables(**environment), capture_output=True, text=True, timeout=LIMIT)


def result(folder):
    return json.loads((folder / "result.json").read_text())


def assert_whole(folder):
    """The run was finished, and nothing that was printed stands in its files."""
    assert result(folder)["status"] == "finished" and "error" not in result(folder)
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 0
    lines = (folder / "train.log").read_text().splitlines()
    assert lines and all(line[:2] == "20" and " INFO " in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("where", [">&- 2>&- <&-", "> /dev/full 2>&1", "| head -1"])
def test_a_run_goes_on_to_its_end_when_nobody_reads(tmp_path, where):
    words = shlex.join([*BAR, "max_epochs=2", "hydra.run.dir=mine"])
    done = shell(f"PYTHON train.py {words} {where}", tmp_path, PYTHONIOENCODING="ascii" if "full" in where else "utf-8")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("\n") == (1 if "head" in where else 0)
    assert_whole(tmp_path / "mine")


@pytest.mark.slow
def test_a_sweep_its_comparison_and_what_is_there_to_be_read(tmp_path):
    done = shell(f"PYTHON train.py -m {shlex.join(SMALL)} seed=0,1 sweep=mine > /dev/full", tmp_path)
    assert done.returncode == 0 and done.stderr == "" and (tmp_path / "mine" / "report.html").exists()
    assert {result(tmp_path / "mine" / name)["status"] for name in "01"} == {"finished"}
    told = "error: the standard output cannot be written (No space left on device)\n"
    printing = [
        *("train.py --help", "train.py --cfg job", "train.py --info searchpath", "train.py --hydra-help", "evaluate.py --help"),
        *("compare.py mine --output read", "compare.py --help", "evaluate.py mine/0"),
    ]
    for number, line in enumerate(printing):  # those that import torch take seconds
        done = shell(f"PYTHON {line} > /dev/full", tmp_path)
        assert (done.returncode, done.stderr) == (1, told), line
        for where in ("| head -1", ">&-") if number < 5 else ():
            done = shell(f"PYTHON {line} {where}", tmp_path)
            assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("\n") <= 1, line
    assert (tmp_path / "read" / "compare.csv").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "read"}


def test_a_mistake_is_one_whoever_reads(tmp_path):
    for where in (">&-", "2>&-", "> /dev/full 2>&1", "2>&1 | head -0"):
        assert shell(f"PYTHON train.py optimizer=none {where}", tmp_path).returncode == 2
    done = command("train.py", 'name="\udcff"', cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == 'error: name="\\udcff" is no text in UTF-8: type it in other letters\n'
    assert not list(tmp_path.iterdir())


def code(lines, cwd, **given):
    """What Python code leaves behind a safe output."""
    words = [sys.executable, "-c", f"from recipes.cli.printing import *\nimport sys, os\nmake_safe()\n{lines}"]
    return subprocess.run(words, cwd=cwd, env=variables(PYTHONPATH=str(ROOT)), timeout=LIMIT, **given)


def test_closed_descriptors_are_taken_by_no_file_of_ours(tmp_path):
    text = (
        "file = open('mine', 'w')\nassert file.fileno() > 2\nprint('printed'); print('told', file=sys.stderr)\nos.system('echo child')\n"
        "assert sys.stdin.read() == ''\nfile.write('ours')"
    )
    close = lambda: [os.close(number) for number in range(3)]  # noqa: E731
    assert code(text, tmp_path, preexec_fn=close).returncode == 0
    assert (tmp_path / "mine").read_text() == "ours"


def test_a_disk_that_has_room_again_is_written_and_a_lost_reader_is_not(tmp_path):
    text = (
        "full = os.open('/dev/full', os.O_WRONLY)\nkept = os.dup(1)\nos.dup2(full, 1)\nprint('lost', flush=True)\n"
        "os.dup2(kept, 1)\nprint('kept', flush=True)\n"
        "try: expect_printed()\nexcept NotPrinted as error: print(error)"
    )
    done = code(text, tmp_path, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "kept\nthe standard output cannot be written (No space left on device)\n"
    read, write = os.pipe()
    os.close(read)
    text = "print('x', flush=True)\nos.system('echo child')\nprint('y', flush=True)\nexpect_printed()\nsys.exit(os.readlink('/proc/self/fd/1') != os.devnull)"
    assert code(text, tmp_path, stdout=write).returncode == 0
    os.close(write)


def test_a_reader_that_is_slow_gets_everything(tmp_path):
    text = "os.set_blocking(1, False)\nprint('x' * 1_000_000)\nexpect_printed()"
    words = [sys.executable, "-c", f"from recipes.cli.printing import *\nimport os\nmake_safe()\n{text}"]
    process = subprocess.Popen(words, env=variables(PYTHONPATH=str(ROOT)), stdout=subprocess.PIPE)
    time.sleep(1)
    assert len(process.communicate(timeout=LIMIT)[0]) == 1_000_001 and process.returncode == 0


# The terminal


class Terminal:
    """A process on a terminal of its own, which can be closed."""

    def __init__(self, cwd, words):
        self.controller, terminal = pty.openpty()
        self.closing = False

        def take():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

        self.process = subprocess.Popen(
            words, cwd=cwd, env=variables(TERM="xterm"), stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=take
        )
        os.close(terminal)
        os.set_blocking(self.controller, False)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        while not self.closing:
            try:
                os.read(self.controller, 65536)
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # the process has ended
                return

    def close(self):
        self.closing = True
        self.reader.join()
        with suppress(OSError):
            os.close(self.controller)

    def wait_until(self, condition):
        end = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None and time.monotonic() < end
            time.sleep(0.05)


def logged(folder, lines):
    """Whether a run has logged more than so many rows."""
    return lambda: (folder / "metrics.csv").exists() and (folder / "metrics.csv").read_bytes().count(b"\n") > lines


def loads(terminal):
    """Whether a process of the command has loaded torch, and the run has not begun."""
    return lambda: "libtorch_cpu" in open(f"/proc/{terminal.process.pid}/maps").read()


TWO = ["trainer=ddp", "trainer.devices=2"]


@pytest.mark.parametrize(
    ("moment", "further"),
    [("trains", []), ("loads", []), ("trains", TWO)],
)
@pytest.mark.slow
def test_a_lost_terminal_saves_and_stops_the_run(tmp_path, moment, further):
    folder = tmp_path / "mine"
    terminal = Terminal(tmp_path, arguments("train.py", *ENDLESS, *further, "hydra.run.dir=mine"))
    try:
        terminal.wait_until(logged(folder, 5) if moment == "trains" else loads(terminal))
        assert moment == "trains" or not (folder / "result.json").exists()
        terminal.close()
        assert terminal.process.wait(LIMIT) == 128 + signal.SIGHUP
    finally:
        terminal.close()
        terminal.process.kill()
    left = result(folder)
    assert left["status"] == "stopped" and left["stopped_by"] == "SIGHUP"
    assert (folder / "checkpoints" / "last.ckpt").exists() == (left["steps"] > 0) >= (moment == "trains")
    if not further:
        steps = left["steps"] + 40
        done = command("train.py", "resume=mine", f"max_steps={steps}", "trainer.progress=false", cwd=tmp_path, forked=True)
        assert done.returncode == 0 and (f"going on from step {left['steps']}" in done.stdout) == (left["steps"] > 0)
        assert result(folder)["status"] == "finished" and result(folder)["steps"] == steps


@pytest.mark.slow
def test_under_nohup_a_run_goes_on_without_its_terminal(tmp_path):
    folder = tmp_path / "mine"
    line = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", *arguments("train.py", *BAR, "max_epochs=40", "hydra.run.dir=mine")]
    terminal = Terminal(tmp_path, line)  # its output stays on the terminal, as that of nohup does not
    try:
        terminal.wait_until(logged(folder, 5))
        terminal.close()
        assert terminal.process.wait(LIMIT) == 0
    finally:
        terminal.close()
        terminal.process.kill()
    assert_whole(folder)
    assert result(folder)["epochs"] == 40
