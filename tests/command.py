"""Runs the real commands in a process of their own, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recipes.store.files import hold
from tests import forked as forked_commands

ROOT = Path(__file__).parents[1]
LIMIT = 600.0  # seconds; only what hangs takes so long, however busy the machine is
SMALL = ("model=linear", "max_steps=2", "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu")


def command(
    script: str, *words: str, cwd: Path, timeout: float = LIMIT, forked: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The ended process of `python SCRIPT WORDS` in a folder; `forked`: of one that has imported the libraries already.

    The commands that it prints are given as they are printed in the project's own folder.
    """
    env = variables(**environment)
    if forked:
        done = forked_commands.command(script, *words, cwd=cwd, env=env, timeout=timeout)
    else:
        done = subprocess.run(
            arguments(script, *words), cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    done.stdout, done.stderr = (as_at_home(text) for text in (done.stdout, done.stderr))
    print(done.stdout, done.stderr)  # shown by pytest when the test fails
    return done


def as_at_home(printed: str) -> str:
    """A text with the project's folder taken out of its commands."""
    return printed.replace(f"python {ROOT}/", "python ")


def arguments(script: str, *words: str) -> list[str]:
    """The command line."""
    return [sys.executable, str(ROOT / script), *words]


def variables(**further: str) -> dict[str, str]:
    """The environment: one thread, nothing sent anywhere."""
    return {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "COLUMNS": "100", **further}


def torchrun(script: str, *words: str) -> list[str]:
    """The command line of two ranks that torchrun starts."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments(script, *words)[1:]]


def wait_until(condition: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until something is true, as long as a process runs that makes it true."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def mistake(*words: str, cwd: Path, script: str = "train.py", forked: bool = False, **environment: str) -> str:
    """The one line that a mistake gives; asserts that it is one, with exit code 2, and that nothing was trained."""
    done = command(script, *words, cwd=cwd, forked=forked, **environment)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert "Traceback" not in done.stdout
    assert not trained(cwd)
    return lines[0]


def trained(folder: Path) -> Sequence[Path]:
    """What a training would have left below a folder."""
    return list(folder.rglob("*.ckpt"))


def run_folder(folder: Path) -> Path:
    """The only run below a folder."""
    (config,) = folder.glob("outputs/*/*/config.yaml")
    return config.parent


def once(base: Path, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, once for all processes in which the tests run.

    Args:
        base: what `tmp_path_factory.getbasetemp()` gives.
        name: of the folder.
        make: fills it.
    """
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with hold(folder / "lock", "makes it", patience=900):
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()
    return folder
