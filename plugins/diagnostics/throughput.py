"""How fast a training is, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch.optim import Optimizer

from plugins.base import Module, Panel, Plugin, Stage, declare
from plugins.diagnostics._looks import processes, summed


class Throughput(Plugin):
    """Log samples and steps a second, the share of the time in which a training waits for data, and the memory of the GPU.

    Over the steps between two looks, all processes together: samples_per_second, steps_per_second, waiting, the share of the time from the end of a
    step to the moment at which the next batch is on the device, and memory, the largest since the start in GiB, of the first process.
    Validations, checkpoints and what compiles in the first step are left out. The device is not waited for: what it has yet to do
    when a look ends is counted in the next one.
    """

    stage = Stage.DIAGNOSTICS
    on_shards = True

    every_n_steps: int = declare.count("steps over which is measured", default=50)

    def __post_init__(self) -> None:
        """Nothing has been timed."""
        self._timed = self._looked = False  # whether the first step is over, and whether there was a look
        self._restart(0.0)

    def _restart(self, now: float) -> None:
        self._window, self._steps, self._samples, self._waited = now, 0, 0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """The first step begins anew."""
        self._timed = self._looked = False
        self._ended, self._clean = time.perf_counter(), True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Data is there: what has passed since the end of the last step was spent on waiting, or was no training."""
        now = time.perf_counter()
        if self._clean:
            self._waited += now - self._ended
        else:
            self._window += now - self._ended

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """From now on the training waits for data."""
        self._ended, self._clean = time.perf_counter(), True

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """What is under way is no waiting."""
        self._clean = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """What is under way is no waiting."""
        self._clean = False

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Count the step, and look when it is time."""
        now = time.perf_counter()
        if not self._timed:  # what is compiled, and allocated, in the first step is no measure
            self._timed = True
            self._restart(now)
            return
        self._steps += 1
        self._samples += 0 if module.clean_batch is None else len(module.clean_batch)
        if module.steps_done % self.every_n_steps == 0:
            self._look(module, now)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Look once in a training that is shorter."""
        if not self._looked:
            self._look(pl_module, self._ended)

    def _look(self, module: Module, now: float) -> None:
        self._looked = True
        if self._steps:
            seconds = max(now - self._window, 1e-9)
            own = torch.tensor([self._samples / seconds, self._steps / seconds, self._waited / seconds], dtype=torch.float32)
            samples, steps, waiting = summed(own.to(module.device)).tolist() if processes() > 1 else own.tolist()
            self.record(module, "samples_per_second", samples, at_once=True)
            self.record(module, "steps_per_second", steps / processes(), at_once=True)
            self.record(module, "waiting", waiting / processes(), at_once=True)
            if module.device.type == "cuda":
                self.record(module, "memory", largest_memory(module.device), at_once=True)
        self._restart(now)

    def drawing(self) -> Sequence[Panel]:
        """Speed and waiting over the steps."""
        return [Panel("samples a second", "samples_per_second"), Panel("waiting for data, share", "waiting")]


def largest_memory(device: torch.device) -> float:
    """The largest memory in GiB that tensors of this process have had on a GPU so far."""
    return torch.cuda.max_memory_allocated(device) / 2**30
