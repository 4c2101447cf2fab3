"""Where something lies in a folder that somebody else may have made: links lead nowhere, and only files are opened. Nothing here imports torch."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from plugins.errors import RecipeError
from recipes.config.run_files import (
    CHECKPOINTS,
    CONFIG,
    CONFUSION,
    ERRORS,
    HISTOGRAMS,
    JOBS,
    LOG,
    METRICS,
    MULTIRUN,
    OUTPUT,
    PICTURE,
    PICTURES,
    RESULT,
    SLURM_JOB,
    SWEEP_LOG,
    TENSORBOARD,
    TEST,
    WANDB,
)

CLOEXEC, NOFOLLOW, NONBLOCK = (getattr(os, f"O_{name}", 0) for name in ("CLOEXEC", "NOFOLLOW", "NONBLOCK"))
RUN_FILES = (CONFIG, RESULT, METRICS, HISTOGRAMS, CONFUSION, TEST, PICTURE, LOG, OUTPUT, SLURM_JOB)
RUN_FOLDERS = (CHECKPOINTS, PICTURES, WANDB, TENSORBOARD, ERRORS)
SWEEP_FILES = (JOBS, SWEEP_LOG, MULTIRUN, "optimization_results.yaml", "wandb-workspace.json")
LINKS = {  # that libraries make in a folder of theirs, and put new ones in place of, or never look at again
    "wandb": re.compile(r"latest-run|debug[\w.-]*\.log"),
    ".submitit": re.compile(r"\.submission_file_[0-9a-f]{32}\.sh"),
}
KINDS = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"), (stat.S_ISFIFO, "a pipe"))


def kind_of(mode: int) -> str:
    """What lies there, in words."""
    return next((words for is_it, words in KINDS if is_it(mode)), "a device or a socket")


def refused(path: Path, what: str, expected: str = "a file") -> RecipeError:
    """The error about something that lies where it cannot be what we wrote."""
    advice = ": what is in the folder of a run or a sweep is not followed out of it" if what == "a link" else ""
    return RecipeError(f"{path} is refused: expected {expected}, found {what}{advice}; move it away")


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file, made if `flags` ask for it; a link is not followed, a pipe is not waited for.

    Raises:
        RecipeError: something else than a file lies there.
        OSError: as of :func:`os.open`.
    """
    try:
        descriptor = os.open(path, flags | CLOEXEC | NOFOLLOW | NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EMLINK):
            raise refused(path, kind_of(os.lstat(path).st_mode)) from None
        raise
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refused(path, kind_of(mode))
    return descriptor


def check_inside(folder: Path, name: str) -> None:
    """Raise where a folder below `folder` is reached by a link; what is not there is fine."""
    place = folder
    for part in Path(name).parts:
        place = place / part
        try:
            mode = os.lstat(place).st_mode
        except OSError:
            return
        if not stat.S_ISDIR(mode):
            raise refused(place, kind_of(mode), "a folder")


def check_files(folder: Path, files: Iterable[str] = RUN_FILES, folders: Iterable[str] = RUN_FOLDERS) -> None:
    """Raise unless what a run leaves in its folder are files and folders, all the way down.

    The folder itself may be a link: its name was typed. So may what others keep in it under names of their own.
    """
    for names, is_it, expected in ((files, stat.S_ISREG, "a file"), (folders, stat.S_ISDIR, "a folder")):
        for name in names:
            path = folder / name
            try:
                mode = os.lstat(path).st_mode
            except (OSError, ValueError):  # it is not there
                continue
            if not is_it(mode):
                raise refused(path, kind_of(mode), expected)
            if stat.S_ISDIR(mode):
                _check_below(path, LINKS.get(name))


def _check_below(folder: Path, links: re.Pattern[str] | None) -> None:
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(Path(entry.path))
                elif stat.S_ISLNK(mode) and links and links.fullmatch(entry.name):
                    continue
                elif not stat.S_ISREG(mode):
                    raise refused(Path(entry.path), kind_of(mode))


def check_sweep(folder: Path) -> None:
    """Raise unless what a sweep leaves in its folder are files; Hydra and submitit would follow links."""
    check_files(folder, SWEEP_FILES, (".submitit",))
