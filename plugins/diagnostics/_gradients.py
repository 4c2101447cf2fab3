"""Gradients of the loss of a step, taken anew beside the training: of its batches as techniques have left them, before the update."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from plugins.activations import eagerly
from plugins.base import Batch, Module
from plugins.diagnostics._looks import LooksAtPasses
from plugins.inputs import each
from plugins.passes import further_pass


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def piece_of(batch: Batch, start: int, stop: int) -> Batch:
    """Some samples of a batch, as the loss takes them."""
    targets = {task: target[start:stop] for task, target in batch.targets.items()}
    weight = {task: counted[start:stop] for task in batch.targets if (counted := batch.counted(task)) is not None}
    x = each(batch.x, lambda value: value[start:stop].detach())
    return replace(batch, x=x, targets=targets, labels={}, weight=weight, samples=None, correction=None)


def loss_of(module: Module, piece: Batch, share: float | None = None) -> Tensor:
    """The losses of all tasks as they are minimized, of a piece, or as the part of a step that it is; penalties are left out."""
    return module.objective(module.outputs(piece.x), piece.targets, piece.weight, share)


class TakesGradients(LooksAtPasses):
    """A diagnostic that takes gradients of the step's own loss; `look` is given the batches of this process once all have passed."""

    on_named_inputs = True
    on_class_maps = True
    on_shards = False

    def __post_init__(self) -> None:
        """No batch has been seen."""
        super().__post_init__()
        self._batches: list[Batch] = []

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Keep the batch of a step to look at."""
        if self.looks_now(module):
            self._batches.append(batch)
        return None

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Look, with the weights that the step begins with in place; change nothing."""
        if self._batches:
            batches, self._batches = self._batches, []
            with torch.enable_grad():
                self.look(module, batches)

    @abstractmethod
    def look(self, module: Module, batches: Sequence[Batch]) -> None:
        """Take gradients, and record what they tell."""

    @contextmanager
    def aside(self, module: Module) -> Iterator[None]:
        """Passes that leave no trace, in full precision, of the model as it is written; the same draws each time within a step."""
        kind = module.device.type
        full = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
        with full, eagerly(module.model), further_pass(module.model, module.generator(self.state_key, same_on_ranks=True)):
            yield
