"""How much memory the machine has left, and the containers and jobs that this process is in. Nothing here imports torch."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

ROOT, GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # of control groups, and those that this process is in


def available(root: Path = ROOT, groups: Path = GROUPS) -> float:
    """Bytes that processes may still take, of the machine and of their control group; without a bound where that is not told."""
    return max(0.0, min(of_machine(), of_group(root, groups)))


def of_machine() -> float:
    """What the machine has left."""
    return kilobytes(Path("/proc/meminfo"), "MemAvailable")


def of_group(root: Path = ROOT, groups: Path = GROUPS) -> float:
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


def kilobytes(file: Path, name: str) -> float:
    """A number of a file of the kernel's, in bytes; infinite where it does not tell."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024.0 * int(line.split()[1])
    return math.inf
