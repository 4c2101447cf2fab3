"""What diagnostics have in common: they look at some steps, at the first passes of these, and put together what all processes have seen."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.base import Module, Plugin, Selection, Stage


class Looks(Plugin):
    """A diagnostic that looks at the first step, and at those whose number is a multiple of `every_n_steps`."""

    stage = Stage.DIAGNOSTICS

    every_n_steps: int

    def looks_at(self, step: int) -> bool:
        """Whether it looks at a step; they count from 1."""
        return step == 1 or step % self.every_n_steps == 0


class LooksAtPasses(Looks):
    """One that looks at what passes through the model, once for each part of a step: at the weights that the step begins with."""

    def __post_init__(self) -> None:
        """No pass has been seen."""
        self.parts = 1
        self._step, self._passes = 0, 0

    def check(self, selection: Selection) -> None:
        """Learn of how many parts a step is made."""
        self.parts = selection.parts

    def would_look(self, module: Module) -> bool:
        """Whether it looks at the next pass: at none of the second gradient that a wrapper asks for."""
        step = module.steps_done + 1
        if step != self._step:
            self._step, self._passes = step, 0
        return self.looks_at(step) and self._passes < self.parts

    def looks_now(self, module: Module) -> bool:
        """Whether to look at the pass under way, asked once in each."""
        looks = self.would_look(module)
        self._passes += 1
        return looks


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """The sum over all processes; all ask at the same time."""
    if processes() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def gathered(values: Tensor) -> Tensor:
    """The values of all processes, one behind the other; all have as many."""
    if processes() == 1:
        return values
    found = [torch.empty_like(values) for _ in range(processes())]
    dist.all_gather(found, values.contiguous())
    return torch.cat(found)
