"""Files that are read once as long as they stay as they are. Nothing here imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

SETTLED = 1.0  # seconds after which a file that is written again has another time
Content = TypeVar("Content")


def remembered(read: Callable[[Path], Content]) -> Callable[[Path], Content]:
    """Reads a file again only where it has changed: a process makes several catalogues, and a warm one reads for its forks."""
    known: dict[Path, tuple[tuple[int, ...], Content]] = {}

    @wraps(read)
    def look(path: Path) -> Content:
        try:
            found = path.stat()
        except OSError:  # which the reading tells
            return read(path)
        stamp = found.st_mtime_ns, found.st_size, found.st_ino
        if path in known and known[path][0] == stamp:
            return known[path][1]
        content = read(path)
        if time.time() > found.st_mtime + SETTLED:
            known[path] = stamp, content
        return content

    return look
