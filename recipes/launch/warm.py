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
    *("recipes.run.train", "recipes.cli.train", "recipes.config.handed", "hydra.main", "torchvision", "wandb"),
    *("sklearn.datasets", "rich.table", "fsspec", "PIL.Image", "torch.utils.serialization", "recipes.launch.sweep"),
    "wandb.sdk.launch",  # a second of imports in each wandb.init
    "recipes.compare.run_picture",
)
# what takes long when it is first called, and comes to the same in every job
FIRST = ("recipes.run.provenance:versions", "recipes.run.provenance:git_commit", "PIL.Image:preinit")
WORDS = ("+a=b", "a.b=0.1", "a=[1,2e-3]", "a=true", "a='b/c d'", 'a="b"', "~a", "a={b:c}")  # such as jobs have
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # of pyarrow, which pandas imports, and scikit-learn pandas
LOOK = 0.005  # seconds between two looks at the jobs
_codes: list[int] = []  # with which a fork ends
_folders: list[tempfile.TemporaryDirectory[str]] = []  # that libraries have made when they were imported
is_fork = False  # whether this process is one
composed = b""  # to what the words of this fork are composed: see `recipes/config/handed.py`


def is_wanted() -> bool:
    """Whether this process is to be forked."""
    return SOCKET in os.environ


def serve() -> list[str]:
    """Fork jobs until nobody asks any more; in a fork the words that it is to train."""
    asked = socket.socket(fileno=int(os.environ.pop(SOCKET)))
    atexit.register(_leave)  # before all that registers something too: the last comes first
    load()
    jobs, files, this = set[int](), list[int](), os.getpid()
    while True:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not (number := os.fork()):  # ahead of the job that it will be: a process of this size takes a while to copy
            parent.end_with(this)
            for other in (asked, ours):
                other.close()
            while files:  # of a request that another fork was lost with
                os.close(files.pop())
            files = socket.recv_fds(theirs, 16, 3)[1]
            theirs.close()
            return _become(*files) if files else os._exit(0)
        theirs.close()
        files = files or _asked(asked, jobs)
        try:
            with ours:
                socket.send_fds(ours, [b"job"], files)
        except OSError:  # it was killed while it waited
            os.waitpid(number, 0)
            continue
        if not files:
            os.waitpid(number, 0)
            sys.exit(0)
        with suppress(OSError):  # the job does so too: whoever comes first
            os.setpgid(number, number)
        _tell(asked, f"begun {number}")
        jobs.add(number)
        while files:
            os.close(files.pop())


def _asked(asked: socket.socket, jobs: set[int]) -> list[int]:
    """The files of the next request, none where nobody asks any more; meanwhile the jobs that end are told."""
    while True:
        ready = select.select([asked], [], [], LOOK if jobs else None)[0]
        for number, code in _ended(jobs):
            _tell(asked, f"ended {number} {code}")
        if ready:
            return list(socket.recv_fds(asked, 16, 3)[1])


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
    for call in (lambda: _read_words(installed), _split, _print, *map(_named, FIRST)):
        with suppress(Exception):
            call()
    gc.enable()
    gc.collect()
    _folders.extend(each for each in gc.get_objects() if type(each) is tempfile.TemporaryDirectory)
    gc.freeze()  # a fork that collects would copy the pages of all of it


def _named(name: str) -> Callable[[], object]:
    module, _, function = name.partition(":")
    return lambda: getattr(importlib.import_module(module), function)()


def _read_words(installed: Sequence[tuple[str, Path]]) -> None:
    from recipes.config import composing, parsing, searching
    from recipes.config.catalogue import Catalogue

    searching.register(installed)
    composing.settings_of_hydra([])  # which every job compares its own with
    parsing.parse(Catalogue(installed), WORDS)


def _split() -> None:
    from sklearn.model_selection import train_test_split

    train_test_split([0, 1], random_state=0)  # looks through all installed packages for such that know its data


def _print() -> None:
    from io import StringIO

    from rich.console import Console

    Console(file=StringIO()).print("")


def inherit_no_exit() -> None:
    """Clean up nothing that the parent has made: at the end of a fork it goes on, with wandb's folder of media and torch's operators."""
    for folder in _folders:
        atexit.unregister(folder.cleanup)
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False


def request(words: Sequence[str], environment: Mapping[str, str], folder: Path, composed: bytes = b"") -> bytes:
    """What is asked of a fork."""
    return (
        json.dumps({"words": list(words), "environment": dict(environment), "folder": str(folder)}).encode() + b"\n" + composed
    )


def _become(wanted: int, output: int, lifeline: int) -> list[str]:
    global is_fork, composed
    is_fork = True
    inherit_no_exit()
    os.setpgid(0, 0)
    parent_number = os.getppid()
    with open(wanted, "rb") as file:
        what: Mapping[str, Any] = json.loads(file.readline())
        composed = file.read()
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
