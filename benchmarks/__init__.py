"""Commands that print ratios side by side with a hand-written loop and with other libraries."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """The bootstrap interval of the median that holds `share` of the resampled medians."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (2000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns: the first one from the left, all others from the right."""
    widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells), flush=True)


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def keep_memory() -> None:
    """Have glibc keep arrays of up to 32 MiB that are freed, in one place for all threads.

    By default it gives large ones back to the system and gets them anew, page by page: with convolutions that takes as long as the rest of a
    step, and falls on either side by chance.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((arena_max, 1), (mmap_threshold, 2**25), (trim_threshold, 2**31 - 1)):
            mallopt(parameter, value)
