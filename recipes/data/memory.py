"""How much memory there is for the data. Nothing here imports torch."""

from __future__ import annotations

import math
from pathlib import Path

from plugins.errors import RecipeError
from recipes.launch import memory

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

COPIES = 3  # of the data there may be at once while it is loaded: as read, as inputs, in its splits


def fits(size: float, processes: int = 1) -> bool:
    """Whether data may be loaded whole.

    Args:
        size: bytes that it takes.
        processes: on this machine that each load it.
    """
    return COPIES * size * processes <= available()


def stays(in_memory: bool | None, size: float, batch_size: int | str, where: object, processes: int = 1) -> bool:
    """Whether data stays where it lies, and is read as it is needed.

    Args:
        in_memory: `data.in_memory`; None: it stays where it does not fit.
        size: bytes that it takes in memory.
        batch_size: of a step, or "full".
        where: the data lies, for the error.
        processes: on this machine that each load it.

    Raises:
        RecipeError: it does not fit, and a step takes all of it.
    """
    if in_memory is not None:
        return not in_memory
    if fits(size, processes):
        return False
    if batch_size == "full":
        raise RecipeError(
            f"data.batch_size=full takes all samples of {where} at once, {size / 2**30:.1f} GiB, for which the memory is too small: "
            f"give a number of samples, or type data.in_memory=true to try"
        )
    return True


def available() -> float:
    """Bytes that this process may still take: of the machine, of its control group, of its own limits (`ulimit -v`, `-d`)."""
    return max(0.0, min(memory.available(), of_limits()))


def of_limits() -> float:
    """What the limits of this process leave."""
    if resource is None:
        return math.inf
    found = [math.inf]
    for limit, taken in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        if (soft := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY:
            used = memory.kilobytes(Path("/proc/self/status"), taken)
            found.append(soft - (0 if used == math.inf else used))
    return min(found)
