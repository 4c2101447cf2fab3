"""Commands in children of one process that has imported all that a job needs, where their start is not what is tested.

A start of `train.py` spends seconds on imports. Here a server imports the libraries once, and of the project what the parent of a sweep's
warm jobs does (:mod:`recipes.launch.warm`), has one thread and has done nothing else, and forks a child for each command. A child is as
good as a real start in these respects:

- the script is loaded anew; what the project's modules compute, such as the name of a run's folder, is of this child, and reads this
  child's environment, arguments and folder, as in a warm job;
- its arguments, folder, environment and standard streams are those given, signals are as at a start, and it leads a process
  group of its own;
- it ends as the interpreter ends a script: exit code, traceback, threads waited for, `atexit`, streams flushed. What the
  interpreter does then, freeing its own memory object by object, takes seconds with so many libraries and is left out.

What a library or the interpreter itself has read when it was loaded is the server's: `READ_AT_START` names such variables, and
a command with one of them is refused here; it needs a real start.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    *("torch", "torch.distributed", "torchvision", "lightning.pytorch", "torchmetrics", "numpy", "scipy.stats", "PIL.Image"),
    *(
        "sklearn.datasets",
        "sklearn.metrics",
        "sklearn.model_selection",
        "hydra",
        "hydra.main",
        "hydra.core.plugins",
        "omegaconf",
    ),
    *(
        "wandb",
        "wandb.sdk",
        "rich.progress",
        "rich.table",
        "plotly",
        "yaml",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
    ),
)
READ_AT_START = ("PYTHON", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "TORCH_", "PYTORCH_", "MPL", "LD_", "LC_", "LANG")
SWEEPS = {"-m", "--multirun", "sweep"}
PAUSE = 0.01


def command(
    script: str, *words: str, cwd: Path, env: Mapping[str, str], stdin: str | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([python, SCRIPT, *WORDS], capture_output=True, text=True)` returns.

    Args:
        script: a path; relative ones are below the project's folder.
        words: arguments of the script.
        cwd: where it runs.
        env: all of its environment.
        stdin: what it reads; None: nothing.
        timeout: seconds, after which the process and those it has started are killed.

    Raises:
        ValueError: the environment has another value of a variable that is read at a real start only.
        subprocess.TimeoutExpired: as `subprocess.run` does.
    """
    if other := differs(env):
        raise ValueError(f"{', '.join(sorted(other))}: read when a process starts; a forked one has started before")
    return _the_server().run(str(ROOT / script), list(words), Path(cwd), dict(env), stdin, timeout)


def differs(env: Mapping[str, str]) -> set[str]:
    """Variables that are read at a real start only, and are not what they were at that of the server."""
    names = {name for name in {*env, *_started} if name.startswith(READ_AT_START)} - {"PYTHONPATH"}  # which `become` heeds
    return {name for name in names if env.get(name) != _started.get(name)}


# what the server has been started with
_started = {**os.environ, "OMP_NUM_THREADS": "1"}
_server: Server | None = None


def _the_server() -> Server:
    """The server of this process, started for its first command and ended with it."""
    global _server
    if _server is None or _server.process.poll() is not None:
        _server = Server()
        atexit.register(_server.close)
    return _server


def is_server(process: subprocess.Popen[Any]) -> bool:
    """Whether a process is the server of this one."""
    return _server is not None and _server.process is process


class Server:
    """The process that forks; one command at a time."""

    def __init__(self) -> None:
        from recipes.launch.warm import NO_THREAD

        self.process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env={**NO_THREAD, **_started},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: str, words: list[str], cwd: Path, env: dict[str, str], stdin: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As :func:`command`."""
        assert self.process.stdin and self.process.stdout
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "stdin").write_text(stdin or "")
            request = {"script": script, "words": words, "cwd": str(cwd), "env": env, "place": folder, "timeout": timeout}
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            assert line, "the server that forks commands has ended"
            code = json.loads(line)
            out, err = [(place / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        arguments = [sys.executable, script, *words]
        if code is None:
            raise subprocess.TimeoutExpired(arguments, timeout, out, err)
        return subprocess.CompletedProcess(arguments, code, out, err)

    def close(self) -> None:
        """End it; a command that still runs is killed."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(60)
        if self.process.stdout:
            self.process.stdout.close()


# ------------------------------------------------------------------ in the server


def serve() -> dict[str, Any]:
    """Fork a child for each request; returns in a child only, with its request."""
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    gc.disable()  # until all is loaded
    for name in LIBRARIES:
        with suppress(ImportError):  # an optional one
            import_module(name)
    sys.path[0] = str(ROOT)
    import_module("recipes.launch.warm").load()
    assert len(os.listdir("/proc/self/task")) == 1 if sys.platform == "linux" else True, "a library has started a thread"
    buffer = b""
    while True:
        while b"\n" not in buffer:
            if not (piece := os.read(requests, 2**16)):
                sys.exit()
            buffer += piece
        line, _, buffer = buffer.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(requests)
            os.close(answers)
            return request
        with suppress(OSError):  # the child may have done so, or be gone
            os.setpgid(child, child)
        code = _wait(child, request["timeout"], requests)
        os.write(answers, (json.dumps(code) + "\n").encode())


def _wait(child: int, timeout: float, requests: int) -> int | None:
    """The exit code; None if the time is over, or nobody waits any more: then the child's group is killed."""
    end = time.monotonic() + timeout
    while True:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        # while a command runs there is no other request, only the end of the one who asks
        gone = bool(select.select([requests], [], [], PAUSE)[0])
        if gone or time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None


def become(request: dict[str, Any]) -> None:
    """Be the process that was asked for, up to its first line of Python."""
    with suppress(OSError):
        os.setpgid(0, 0)
    warm = sys.modules["recipes.launch.warm"]
    warm.inherit_no_exit()  # type: ignore[attr-defined]
    warm.is_fork = True  # type: ignore[attr-defined]  # whose ranks are forks, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    place = Path(request["place"])
    for number, (name, flags) in enumerate((("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))):
        opened = os.open(place / name, flags | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.modules["torch"].set_num_threads(1)  # OMP_NUM_THREADS; its pool is renewed here, by one thread: see tests/ranks.py
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    time.tzset()
    os.fsync = lambda descriptor: None  # see tests/conftest.py
    sys.modules["recipes.launch.failures"].BEGAN = time.time()  # type: ignore[attr-defined]
    sys.argv = [request["script"], *request["words"]]
    sys.path[0] = str(Path(request["script"]).parent)
    sys.path[1:1] = [path for path in request["env"].get("PYTHONPATH", "").split(os.pathsep) if path not in ("", *sys.path)]
    if SWEEPS.intersection(word.partition("=")[0] for word in request["words"]):
        spare = import_module("tests.spare").Spare(differs, end)
        sys.modules["recipes.launch.forked"].subprocess = spare  # type: ignore[attr-defined]


def end(script: str) -> NoReturn:
    """Run the script, and end as the interpreter does."""
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = 120
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    if code < 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    become(serve())
    end(sys.argv[0])
