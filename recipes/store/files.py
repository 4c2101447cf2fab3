"""Files that are whole at every moment, and folders that one process works in at a time. Nothing here imports torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from plugins.errors import RecipeError
from recipes.config.places import open_file

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

_holding: set[IO[bytes]] = set()  # files whose locks this process holds


def _let_go() -> None:
    """In a fork, such as a worker that loads data: the lock is its parent's, and would else last until both have ended."""
    while _holding:
        _holding.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that at every moment it is the old one or the new one; `write` gets the open file."""
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # an earlier process had this number, or somebody wants it to be a link
            part.unlink()
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with suppress(OSError):
            part.unlink()


def open_to_append(path: Path) -> IO[bytes]:
    """A file to write at the end of, whole lines at once; it is made if it is not there, and never a link to another one."""
    return open(open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda file: file.write(text.encode(errors="replace")))


def unwritable(path: Path, error: Exception) -> RecipeError:
    """The error about a file that cannot be written."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):  # torch puts an error of its own on top
        cause = cause.__context__
    reason = cause.strerror if cause else "torch could not write"
    return RecipeError(f"{path} cannot be written ({reason}): is there room on the disk?")


@contextmanager
def hold(path: Path, doing: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a file's lock, which ends with the block or with the process, however it ends.

    Args:
        path: a file that is made if it is not there; what stands in it is left alone.
        doing: what the other process does if it holds the lock, for the error: "trains in outputs/x".
        patience: seconds to wait for a process that is about to end.

    Raises:
        RecipeError: another process holds the lock, or the file cannot be written.
    """
    if fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = open_to_append(path)
    except OSError as error:
        raise unwritable(path, error) from None
    with opened as file:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RecipeError(f"another process {doing}: wait for its end, or stop it first") from None
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        _holding.add(file)
        try:
            yield
        finally:
            _holding.discard(file)


def is_held(path: Path) -> bool:
    """Whether another process holds a file's lock."""
    if fcntl is None or not path.exists():
        return False
    with open(open_file(path), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def remove_empty(folder: Path) -> None:
    """Leave no folder behind where nothing was trained; what lies outside of the working folder is left alone."""
    while Path.cwd() in folder.absolute().parents and (not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))):
        with suppress(FileNotFoundError):
            folder.rmdir()
        folder = folder.parent
