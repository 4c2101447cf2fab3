"""What holds for the whole process of a run: threads, precision, warnings that are silenced."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from plugins.base import expect_choice


def set_up_process(config: Mapping[str, Any]) -> None:
    """Threads, random states, and silence about what Lightning says to everybody."""
    trainer = config["trainer"]
    if trainer["num_threads"]:
        torch.set_num_threads(trainer["num_threads"])
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    set_matmul_precision(trainer["matmul_precision"])
    torch.manual_seed(config["seed"])  # for what draws outside of the owners' generators: third-party code, and a user's own
    random.seed(config["seed"])
    np.random.seed(config["seed"] % 2**32)
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
    warnings.filterwarnings("ignore", message=".*LeafSpec")
    warnings.filterwarnings("ignore", message=".*`srun` command is available")  # as on every login node of a cluster
    warnings.filterwarnings("ignore", message=".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`")


def set_matmul_precision(precision: str) -> None:
    """How exactly numbers of 32 bits are multiplied: "highest" keeps all bits, the others let GPUs round what goes in (TF32).

    It holds for convolutions too, which torch by itself always lets round.
    """
    expect_choice("trainer.matmul_precision", precision, ("highest", "high", "medium"))
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
