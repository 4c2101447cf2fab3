"""Where a number comes from: versions of libraries, revision of the source, machine, memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "wandb", "numpy", "lightning-recipes")


ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """Versions, machine and source revision, so that a number can be traced."""
    return {"versions": dict(versions()), "git_commit": git_commit(), "machine": machine()}


@cache
def versions() -> Mapping[str, str]:
    """The versions of the libraries that this process has imported, or that it is a fork of."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def git_commit() -> str | None:
    """The revision of the source, with a plus where files differ from it; none where it is installed: what is around it is another's.

    It is looked up once: a process that has imported the source trains with that, whatever becomes of the files.
    """
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def machine() -> str:
    """The accelerator's name, or the number of CPU threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use: on the accelerator, or by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)

    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
