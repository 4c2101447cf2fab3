"""Messages of a run: to its train.log, and the warnings of our own making to the console too."""

from __future__ import annotations

import io
import logging.handlers
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recipes.config.errors import printable
from recipes.config.run_files import LOG
from recipes.launch import failures, ranks
from recipes.launch.ranks import is_first_rank
from recipes.run.provenance import ROOT
from recipes.store.files import open_to_append

STANDARD = Path(sysconfig.get_path("stdlib"))


class Journal(logging.handlers.MemoryHandler):
    """Keeps messages for a file until they may be written."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(sys.maxsize, logging.CRITICAL + 1, target, flushOnClose=False)
        self.setLevel(target.level)

    def pass_on(self) -> None:
        """Write what was kept, and from now on each message at once."""
        self.capacity = 1
        self.flush()


@contextmanager
def log_to(folder: Path) -> Iterator[Journal]:
    """Send this project's messages, Lightning's and Python's warnings to `train.log`; our own warnings to the console too.

    Nothing is written before the journal is released, once there is a run that it belongs to.

    Several ranks of a machine write to one file, each message at once and marked; those of other machines, which a shared file
    system would not keep apart, to their console. All tell their warnings and errors, the first one everything.
    """
    file = logging.StreamHandler() if ranks.node() else LogFile(folder / LOG, delay=True)
    file.setFormatter(RankFormatter("%(asctime)s %(levelname)s %(message)s"))
    file.setLevel(logging.INFO if is_first_rank() else logging.WARNING)
    journal = Journal(file)
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("warning: %(message)s"))
    console.addFilter(lambda record: record.levelno == logging.WARNING and is_first_rank())
    ours = logging.getLogger("recipes")
    level, show = ours.level, warnings.showwarning
    ours.setLevel(logging.INFO)
    ours.addHandler(console)
    warnings.showwarning = log_warning
    loggers = [ours, logging.getLogger("lightning.pytorch"), logging.getLogger("py.warnings")]
    for logger in loggers:
        logger.addHandler(journal)
    try:
        yield journal
    finally:
        for logger in loggers:
            logger.removeHandler(journal)
        ours.removeHandler(console)
        ours.setLevel(level)
        warnings.showwarning = show
        journal.close()
        file.close()


class LogFile(logging.FileHandler):
    """Writes to the end of a file that is no link."""

    def _open(self) -> Any:
        return io.TextIOWrapper(open_to_append(Path(self.baseFilename)), "utf-8", "replace", write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:
        """A disk that is full is told in a line by what cannot go on without it; anything else as logging tells it."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class RankFormatter(logging.Formatter):
    """Marks each line with the rank where there are several."""

    def format(self, record: logging.LogRecord) -> str:
        """The message as it is written."""
        text = printable(super().format(record), "\n\t")
        return failures.mark(text, ranks.rank()) if ranks.world() > 1 else text


def log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
) -> None:
    """Python's warnings as messages: those of our own techniques, and of the user's files, are for the user."""
    place = Path(filename)
    ours = any(folder in place.parents for folder in (ROOT / "plugins", ROOT / "recipes"))
    installed = STANDARD in place.parents or not {"site-packages", "dist-packages"}.isdisjoint(place.parts)
    users = not installed and ROOT / "tests" not in place.parents and os.path.isfile(filename)
    logging.getLogger("recipes" if ours or users else "py.warnings").warning(
        "%s", message if ours else f"{filename}:{lineno}: {message}"
    )
