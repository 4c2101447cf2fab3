"""A process that has imported what every job needs and done nothing else; each job is a fork of it. Nothing here imports torch by itself.

It is started with the words of a job's command, and a socket: whoever wants a job sends a message of three open files (the request, where
the job prints, its lifeline). The fork goes on as if it had been started by itself: a process group, environment, folder and arguments of
its own, no thread, no random state, nothing open. What is heard back: `begun NUMBER`, in the order of the messages, and `ended NUMBER CODE`.

Forking is safe on Linux only, where no library that is imported here has started a thread.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import logging
import os
import select
import socket
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from recipes.launch import failures, parent
from recipes.launch.identity import LIFELINE

SOCKET = "LIGHTNING_RECIPES_WARM"  # names the socket, in a process that is to be forked
NEEDED = (
    *("recipes.run.train", "recipes.cli.train", "recipes.config.composing", "hydra.main", "torchvision", "wandb"),
    *("sklearn.datasets", "rich.table", "fsspec", "PIL.Image", "torch.utils.serialization", "recipes.launch.sweep"),
    "wandb.sdk.launch",  # a second of imports in each wandb.init
    "recipes.compare.run_picture",
)
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # of pyarrow, which pandas imports, and scikit-learn pandas
LOOK = 0.02  # seconds between two looks at the jobs
_codes: list[int] = []  # with which a fork ends
_folders: list[tempfile.TemporaryDirectory[str]] = []  # that libraries have made when they were imported
is_fork = False  # whether this process is one


def is_wanted() -> bool:
    """Whether this process is to be forked."""
    return SOCKET in os.environ


def serve() -> list[str]:
    """Fork jobs until nobody asks any more; in a fork the words that it is to train."""
    asked = socket.socket(fileno=int(os.environ.pop(SOCKET)))
    atexit.register(_leave)  # before all that registers something too: the last comes first
    load()
    jobs: set[int] = set()
    while True:
        ready = select.select([asked], [], [], LOOK if jobs else None)[0]
        for number, code in _ended(jobs):
            _tell(asked, f"ended {number} {code}")
        if not ready:
            continue
        message, files, _, _ = socket.recv_fds(asked, 16, 3)
        if not message:
            sys.exit(0)
        if not (number := os.fork()):
            asked.close()
            return _become(*files)
        with suppress(OSError):  # the job does so too: whoever comes first
            os.setpgid(number, number)
        _tell(asked, f"begun {number}")
        jobs.add(number)
        for file in files:
            os.close(file)


def go_on(command: Callable[[], object]) -> NoReturn:
    """Run the command of a fork to its end, which comes without taking down all that was imported: that would copy the pages of it."""
    code: object = 0
    try:
        command()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    _codes.append(code if isinstance(code, int) else 0 if code is None else 1)
    sys.exit(_codes[-1])


def _leave() -> None:
    """End at once, after everything else that is done at an exit; in a fork only."""
    if _codes:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(_codes[-1])


def load() -> None:
    """Import what jobs need, with the plugins of installed packages; what cannot be imported is told by the job that needs it."""
    from recipes.config.catalogue import Catalogue, installed_folders

    installed = installed_folders()
    named = {
        str(option.node.get("_target_", "")).rpartition(".")[0]
        for options in Catalogue(installed).groups.values()
        for option in options.values()
    }
    gc.disable()  # a sixth of all that imports take
    for name in (*NEEDED, *sorted(named)):
        if name.partition(".")[0] not in ("", "torch", "timm"):
            with suppress(Exception):
                importlib.import_module(name)
    with suppress(Exception):
        importlib.import_module("recipes.config.searching").register(installed)
        importlib.import_module("recipes.config.composing").settings_of_hydra([])  # which every job compares its own with
    gc.enable()
    gc.collect()
    _folders.extend(each for each in gc.get_objects() if type(each) is tempfile.TemporaryDirectory)
    gc.freeze()  # a fork that collects would copy the pages of all of it


def inherit_no_exit() -> None:
    """Clean up nothing that the parent has made: at the end of a fork it goes on, with wandb's folder of media and torch's operators."""
    for folder in _folders:
        atexit.unregister(folder.cleanup)
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False


def request(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> bytes:
    """What is asked of a fork."""
    return json.dumps({"words": list(words), "environment": dict(environment), "folder": str(folder)}).encode()


def _become(wanted: int, output: int, lifeline: int) -> list[str]:
    global is_fork
    is_fork = True
    inherit_no_exit()
    os.setpgid(0, 0)
    parent_number = os.getppid()
    with open(wanted, "rb") as file:
        what: Mapping[str, Any] = json.load(file)
    os.environ.clear()
    os.environ.update({**what["environment"], LIFELINE: str(lifeline), parent.PARENT: str(parent_number)})
    parent.find()
    os.chdir(what["folder"])
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    sys.argv[1:] = what["words"]
    failures.BEGAN = time.time()
    return list(what["words"])


def _tell(asked: socket.socket, line: str) -> None:
    with suppress(OSError):  # nobody listens any more
        asked.send(line.encode())


def _ended(jobs: set[int]) -> list[tuple[int, int]]:
    found = []
    for number in list(jobs):
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            jobs.discard(number)
            found.append((number, os.waitstatus_to_exitcode(status)))
    return found
