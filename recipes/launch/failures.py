"""What ranks say about their failures: each leaves a note, the first one that failed is told. Nothing here imports torch."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.config.run_files import ERRORS, LOG, RESULT
from recipes.config.untrusted import read_json
from recipes.launch import slurm_job as slurm
from recipes.launch.identity import here
from recipes.launch.ranks import is_watched, node, rank, world
from recipes.store.files import open_to_append, write_text
from recipes.store.folder import result_or_empty, write_result

# what a rank says that has lost another one
CONSEQUENCE = re.compile(r"connection (closed|reset)|broken pipe|socket|nccl|gloo|c10d|store|timed? ?out|another process", re.I)
LOST = re.compile(r"^srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)\S*: (?P<what>.+)$", re.M)
MEMORY = " (is there enough memory?)"
GRACE = 5.0  # seconds for the others to fail by themselves, after a rank has failed
LATE = 30.0  # seconds that a shared file system may take to show what another node has written
PATIENCE = 3.0  # seconds after which every rank has left its note that ever will
BEGAN = time.time()  # of this process; a fork sets its own


def fail(folder: Path, error: BaseException, code: int, is_mistake: bool) -> None:
    """In one of several ranks: leave a word, and end the process at once, before it waits for the others."""
    if world() == 1 or isinstance(error, RankError):  # the latter is told by the process that watches
        return
    if isinstance(error, KeyboardInterrupt):
        end(code)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun wants all to end as soon as one has
    with suppress(RecipeError):  # the disk may be what failed
        leave_note(folder, rank(), one_line(error), is_mistake)
    if not is_mistake:
        _write_traceback(folder, error)
    if slurm.ranks() > 1:
        print(f"error: {one_line(error)}", file=sys.stderr)
        write_failure(folder, first_error(folder))
    elif not is_watched():
        _tell_unwatched(folder)
    end(code)


def end(code: int) -> None:
    """End the process with all it has started, without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_note(folder: Path, number: int, error: str, is_mistake: bool = False) -> None:
    """Note why a rank has failed."""
    job = here().job
    host = job.host if job and slurm.ranks() > 1 else ""
    write_text(
        folder / ERRORS / f"{number}.json",
        json.dumps({"rank": number, "host": host, "error": error, "mistake": is_mistake, "start": _this_start()}) + "\n",
    )


def _write_traceback(folder: Path, error: BaseException) -> None:
    """Where the user is told to look: in `train.log`, but in a job's output where Slurm has one for all ranks."""
    lines = [line for part in traceback.format_exception(error) for line in part.splitlines()]
    if slurm.ranks() > 1 or node():
        print("\n".join(lines), file=sys.stderr)
    else:
        write_log(folder, "\n".join(["ERROR the rank failed", *lines]))


def write_log(folder: Path, text: str, number: int | None = None) -> None:
    """Add lines about a rank to `train.log`, which several processes of one machine write to, each whole lines at once."""
    marked = mark(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 {text}", rank() if number is None else number)
    with open_to_append(folder / LOG) as file:
        file.write(f"{marked}\n".encode())


def mark(text: str, number: int) -> str:
    """A message with its rank before each line."""
    return "\n".join(f"rank {number}: {line}" for line in text.split("\n"))


def _note_files(folder: Path) -> list[Path]:
    return [path for path in (folder / ERRORS).glob("*.json") if path.stem.isdigit()]


def forget_errors(folder: Path) -> None:
    """Remove what ranks have said."""
    for path in _note_files(folder):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is something else in it, or it is not there
        (folder / ERRORS).rmdir()


def forget_earlier(folder: Path) -> None:
    """Remove what ranks have said at an earlier start of the run, in the same folder."""
    for path in _note_files(folder):
        note = read_note(path)
        started = note and (note["start"] == _this_start() if slurm.ranks() > 1 else path.stat().st_mtime >= BEGAN)
        if not started:
            path.unlink()
    with suppress(OSError):  # there is a later one, or none was ever
        (folder / ERRORS).rmdir()


def _this_start() -> str:
    """What tells the ranks of this start of a Slurm job from those of others, which clocks of several nodes may not."""
    job = here().job
    return f"{job.number}.{job.step}.{job.restarts}" if job and slurm.ranks() > 1 else ""


def end_with_others(folder: Path) -> None:
    """In a rank of Slurm's: end at once when Slurm asks for it because another one has failed.

    Python hears no signal while torch waits for that rank; only a thread does, of what Python's own handler writes to a pipe.
    """
    if slurm.ranks() == 1:
        return
    heard, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def wait() -> None:
        while signal.SIGTERM not in os.read(heard, 64):
            pass
        until = time.monotonic() + LATE
        while time.monotonic() < until:
            if any(note["start"] == _this_start() for note in notes(folder)):
                write_failure(folder, first_error(folder))
                end(1)
            time.sleep(0.5)

    threading.Thread(target=wait, daemon=True).start()


def notes(folder: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """What ranks have said about their failures, the earliest first."""
    paths = [path for path in _note_files(folder) if path.lstat().st_mtime >= since]
    found = [read_note(path) for path in sorted(paths, key=lambda path: path.lstat().st_mtime_ns)]
    return [note for note in found if note is not None]


def read_note(path: Path) -> dict[str, Any] | None:
    """What a rank has said; None where it is nothing that a rank says."""
    try:
        note = read_json(path)
    except (OSError, RecipeError):
        return None
    kinds = {"rank": int, "host": str, "error": str, "mistake": bool, "start": str}
    return note if all(type(note.get(name)) is kind for name, kind in kinds.items()) else None


def first_note(found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The note that tells what went wrong first: the others have only lost that rank; None where all have lost another one."""
    mistakes = [note for note in found if note["mistake"]]
    return next((note for note in (*mistakes, *found) if note["mistake"] or not CONSEQUENCE.search(note["error"])), None)


def in_words(note: Mapping[str, Any]) -> str:
    """A note in a line."""
    if note["mistake"]:
        return str(note["error"])
    return f"rank {note['rank']}{' on ' + note['host'] if note['host'] else ''}: {note['error']}"


def first_error(folder: Path, output: str = "") -> str:
    """What went wrong first among several ranks, in a line; empty if nothing is known.

    Args:
        folder: the run's folder.
        output: what a job of Slurm has printed, `srun` too.
    """
    found = notes(folder)
    if first := first_note(found):
        return in_words(first)
    for lost in LOST.finditer(output):
        if "Exited" not in lost["what"]:
            memory = MEMORY if lost["what"].startswith("Killed") else ""
            return f"rank {lost['rank']} on {lost['node']}: {lost['what'].lower()}{memory}"
    return in_words(found[0]) if found else ""


def _tell_unwatched(folder: Path) -> None:
    """Where nobody watches the ranks: the one whose note counts tells it, and the lowest one that is left writes the result."""
    until = time.time() + PATIENCE
    while (first := first_note(found := notes(folder, BEGAN))) is None and time.time() < until:
        time.sleep(0.1)
    numbers = {rank(), *(note["rank"] for note in found)}
    lowest = min(numbers) == rank()
    if first is None:
        silent = ", ".join(str(number) for number in range(world()) if number not in numbers)
        line = in_words(found[0]) if found and not silent else f"rank {silent}: ended without a word{MEMORY}"
    else:
        line = in_words(first)
    if first["rank"] == rank() if first else lowest:
        print(f"error: {line}; log {folder / LOG}", file=sys.stderr)
    if lowest:
        write_failure(folder, line)


def write_failure(folder: Path, line: str, since: int | None = None) -> None:
    """Say in the result of a run why it failed, unless it was last written before: it may be that of a run which goes on.

    Args:
        folder, line: the run's folder, and why.
        since: nanoseconds of the clock; None: since this process began.
    """
    result = result_or_empty(folder)
    since = int(BEGAN * 1e9) if since is None else since
    if result.get("status") in ("running", "failed") and _changed(folder) > since:
        write_result(folder, result | {"status": "failed", "error": line})


def _changed(folder: Path) -> int:
    """When the result was written last."""
    try:
        return (folder / RESULT).stat().st_mtime_ns
    except OSError:
        return 0


class RankError(Exception):
    """One of several ranks has failed; the message is for the user."""
