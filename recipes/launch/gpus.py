"""The accelerators of this machine, dealt to jobs that run at a time. Nothing here imports torch."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence


def accelerators() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without loading torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    try:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def deal(gpus: Sequence[str], taken: Sequence[Sequence[str]], wanted: int | None) -> list[str]:
    """The GPUs for the next job: those that the fewest running jobs have, all of them where `wanted` is None or too many."""
    load = {gpu: sum(gpu in others for others in taken) for gpu in gpus}
    return sorted(gpus, key=lambda gpu: load[gpu])[: wanted if wanted is not None else len(gpus)]


def have_room(gpus: Sequence[str], taken: Sequence[Sequence[str]], most: float) -> bool:
    """Whether each of these GPUs is one that fewer than `most` running jobs have."""
    return all(sum(gpu in others for others in taken) < most for gpu in gpus)
