"""How much memory there is for the data. Nothing here imports torch."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

from plugins.errors import RecipeError

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
    return max(0.0, min(of_machine(), of_group(), of_limits()))


def of_machine() -> float:
    """What the machine has left."""
    return kilobytes(Path("/proc/meminfo"), "MemAvailable")


def of_group(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float:
    """What the control group of a container or a job has left, and those that it is in."""
    found = [math.inf]
    with suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            folder = root / controllers / place.strip("/")
            for each in (folder, *folder.parents):
                found.append(of_folder(each))
                if each in (root, root / "memory"):
                    break
    return min(found)


def of_folder(folder: Path) -> float:
    """What one control group has left; files that were read are given back when memory is needed, and do not count."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # "max": none
            most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return most - taken + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return math.inf


def of_limits() -> float:
    """What the limits of this process leave."""
    if resource is None:
        return math.inf
    found = [math.inf]
    for limit, taken in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        if (soft := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY:
            used = kilobytes(Path("/proc/self/status"), taken)
            found.append(soft - (0 if used == math.inf else used))
    return min(found)


def kilobytes(file: Path, name: str) -> float:
    """A number of a file of the kernel's, in bytes; infinite where it does not tell."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024.0 * int(line.split()[1])
    return math.inf
