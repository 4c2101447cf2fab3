"""The ranks of one run: processes that train it together, each on a device.

On one machine `train.py` starts them itself, watches them, hands signals on, and tells in one line what went wrong in any of
them; elsewhere `srun` and `torchrun` start them. Whoever did, a rank that fails leaves a note in the run's folder, for what
the others have to say is mostly that they have lost it.

Nothing here imports torch, unless GPUs are to be counted: a signal may come while a run is still loading.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from typing import IO, Any

from plugins.errors import RecipeError
from recipes.launch import slurm_job as slurm
from recipes.launch.gpus import accelerators
from recipes.launch.identity import LIFELINE, here, in_job

STOPPING = b"\nstopping after this step; Ctrl-C once more stops at once\n"


def rank() -> int:
    """The number of this process among those that train together."""
    return here().rank


def world() -> int:
    """How many processes were started to train together, this one among them."""
    return here().world


def node() -> int:
    """The number of this machine among those that train together."""
    return here().node


def is_watched() -> bool:
    """Whether a process of `train.py` watches this one and tells what goes wrong in it."""
    return here().launcher == "own"


def devices_here(trainer: Mapping[str, Any]) -> int:
    """The number of devices to train on, on each machine."""
    devices = trainer["devices"]
    if isinstance(devices, int) and devices > 0:
        return devices
    if trainer["accelerator"] not in ("auto", "gpu", "cuda"):
        return 1
    import torch

    return torch.cuda.device_count() or 1


def asking() -> list[signal.Signals]:
    """The signals that ask for an end, without those that a job in the background is not to hear."""
    names = slurm.SIGNALS if in_job() else slurm.ASKING
    numbers = [signal.Signals[name] for name in names]
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def lifeline() -> int | None:
    """The descriptor that can be read once the process is gone that has started this one; None where nobody has, or it was taken."""
    descriptor = os.environ.pop(LIFELINE, None)
    return None if descriptor is None else int(descriptor)


def end_with_parent() -> None:
    """End as if stopped, with a saved state, once the process is gone that has started this one, however it went."""
    if (descriptor := lifeline()) is None:
        return
    alive: IO[bytes] = os.fdopen(descriptor, "rb", buffering=0)

    def wait() -> None:
        alive.read(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


# ------------------------------------------------------------------ ranks of our own


def to_start(config: Mapping[str, Any]) -> int:
    """How many ranks are to be started on this machine; 0: this process trains itself."""
    if here().launcher not in ("alone", "nodes") or config["explain"]:
        return 0
    count = devices_here(config["trainer"])
    if count * config["trainer"]["num_nodes"] <= 1:
        return 0
    expect_cores(config["trainer"], count)
    return count


def expect_cores(trainer: Mapping[str, Any], count: int) -> None:
    """Refuse more processes on the CPU than there are cores, which would only wait for each other, each with all libraries in memory."""
    cores = cores_here()
    if count <= cores or trainer.get("oversubscribe") or trainer["accelerator"] not in ("auto", "cpu"):
        return
    if trainer["accelerator"] == "cpu" or not accelerators():
        raise RecipeError(
            f"trainer.devices={count}: this machine has {cores} CPU core{'s' * (cores > 1)}, and that many processes would wait for each "
            f"other; type trainer.devices={cores}, or trainer.oversubscribe=true to start them all the same"
        )


def cores_here() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(processes: int) -> str:
    """OMP_NUM_THREADS of each of several processes at a time, whose threads would else wait for each other."""
    return str(max(1, cores_here() // processes))


def check_started(trainer: Mapping[str, Any]) -> None:
    """Refuse processes that were started side by side but are not those which the config wants."""
    slurm.check_ranks(trainer)
    who, nodes = here(), trainer["num_nodes"]
    if who.launcher == "alone":
        if nodes > 1:
            raise RecipeError(
                f"trainer.num_nodes={nodes}: nothing has started processes on {nodes} machines; on a cluster with Slurm type "
                f"python train.py -m hydra/launcher=slurm trainer=ddp trainer.num_nodes={nodes}"
            )
    elif who.launcher == "nodes":
        if who.node >= nodes:
            raise RecipeError(
                f"NODE_RANK={who.node} in the environment, and trainer.num_nodes={nodes}: the machines are numbered from 0; type "
                f"trainer=ddp trainer.num_nodes={who.node + 1} or more, or for one machine unset NODE_RANK"
            )
    elif who.launcher in ("torchrun", "hand"):
        devices = devices_here(trainer)
        fits = who.world == devices * nodes and who.local_rank < devices and who.local_world in (0, devices)
        if not fits or (who.launcher == "hand" and who.rank != who.node * devices + who.local_rank):
            on_each = who.local_world or (who.world if not who.node else (who.rank - who.local_rank) // who.node)
            raise RecipeError(
                f"{who.world} processes were started for one run, this one as number {who.local_rank} of machine {who.node}, and "
                f"trainer.devices={devices} with trainer.num_nodes={nodes} wants {devices * nodes}: type trainer=ddp "
                f"trainer.devices={on_each} trainer.num_nodes={who.world // max(1, on_each)}"
            )


def is_first_rank() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0
