"""What a finished run needs no more: states from which only a longer training would go on. Nothing here imports torch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from plugins.errors import RecipeError
from recipes.config.places import check_files
from recipes.config.run_files import BEST, CHECKPOINTS, LAST, LOG, PREVIOUS
from recipes.store.files import hold, is_held
from recipes.store.folder import result_or_empty

KEEP = {  # what is removed, by what is kept
    "last": (),  # whose best weights are in previous.ckpt where best.ckpt is younger
    "best": (PREVIOUS, LAST),
    "nothing": (PREVIOUS, LAST, BEST),
}


@dataclass(frozen=True)
class Spare:
    """Files of a run that can go.

    Attributes:
        folder: of the run.
        files: which.
        size: bytes of all of them.
        reason: why none can go; empty where the run is finished.
    """

    folder: Path
    files: tuple[Path, ...] = ()
    size: int = 0
    reason: str = ""


def spare(folders: Iterable[Path], keep: str) -> list[Spare]:
    """What can go of each run, and why nothing can.

    Args:
        folders: of runs.
        keep: `best`: the weights that validated best | `last`: and the state from which a longer training goes on | `nothing`.

    Raises:
        RecipeError: a folder that is not what a run leaves, such as one with links.
    """
    return [_of_run(folder, keep) for folder in folders]


def _of_run(folder: Path, keep: str) -> Spare:
    check_files(folder)
    if (log := folder / LOG).exists() and is_held(log):
        return Spare(folder, reason="a process trains there")
    if reason := _unfinished(folder):
        return Spare(folder, reason=reason)
    found = []
    for name in KEEP[keep]:
        path = folder / CHECKPOINTS / name
        with suppress(FileNotFoundError):
            if stat.S_ISREG(os.lstat(path).st_mode):
                found.append(path)
    inodes = {(entry := path.stat()).st_ino: entry.st_size for path in found}  # one file may have two names
    return Spare(folder, tuple(found), sum(inodes.values()))


def _unfinished(folder: Path) -> str:
    """Why a run needs all that it has; empty where it is finished."""
    status = result_or_empty(folder).get("status", "unknown")
    return "" if status == "finished" else f"it is {status}"


def remove(spares: Iterable[Spare]) -> list[Spare]:
    """Remove the files; a run that is not finished any more, as it was resumed meanwhile, keeps them.

    Returns:
        What has gone, and of a run that keeps its files why.

    Raises:
        RecipeError: a file cannot be removed, or a process trains there.
    """
    done = []
    for each in spares:
        with ExitStack() as stack:
            if (log := each.folder / LOG).exists():
                stack.enter_context(hold(log, f"removes checkpoints in {each.folder}"))
            reason = _unfinished(each.folder)
            done.append(Spare(each.folder, reason=reason) if reason else each)
            for path in done[-1].files:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise RecipeError(f"{path} cannot be removed: {error.strerror}") from None
    return done
