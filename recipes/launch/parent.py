"""A process that ends with the one that has started it, at any moment, while it imports too. Nothing here imports torch.

On Linux the kernel sends a signal when the parent is gone; what was gone before a process could ask for that has left it to another
parent. Elsewhere a pipe tells (:func:`recipes.launch.ranks.end_with_parent`), which is heard between two imports only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PARENT = "LIGHTNING_RECIPES_PARENT"  # number of the process that has started this one
ON_PARENTS_END = 1  # PR_SET_PDEATHSIG of prctl

_parent: int | None = None


def of_mine(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that this one starts."""
    return {**environment, PARENT: str(os.getpid())}


def find() -> None:
    """Learn which process has started this one, if it was one of ours, and end at once when it does."""
    number = os.environ.pop(PARENT, "")
    if number.isdigit():
        end_with(int(number))
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        end_with(os.getppid())
        if not _is_below_torch():
            sys.exit("the torchrun that has started this rank is gone")


def end_with(number: int) -> None:
    """End at once when that process does, which has started this one."""
    global _parent
    _parent = number
    ends_by(signal.SIGKILL)


def ends_by(number: signal.Signals) -> None:
    """From now on the parent's end is this signal: one that ends at once, or that a training hears, to save its state."""
    if _parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(ON_PARENTS_END, int(number), 0, 0, 0)
    if os.getppid() != _parent:
        os.kill(os.getpid(), number)


def _is_below_torch() -> bool:
    """Whether a process above this one has loaded torch, as torchrun has: one that was gone before has left this one to init."""
    if sys.platform != "linux":
        return True
    number = os.getppid()
    while number:
        with suppress(OSError):  # of another user, thus no torchrun of this rank
            if "libtorch" in Path(f"/proc/{number}/maps").read_text(errors="replace"):
                return True
        try:  # number, name in parentheses, state, number of the parent
            number = int(Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            break
    return False
