"""What averages of the weights have in common: kept beside the training weights, swapped in for evaluation, left in at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Module, Plugin, RecipeError, Refusal, Selection, Stage
from plugins.shards import kept_like, parts


class Averaging(Plugin):
    """Average the weights after each update; validation, the best model and the trained result use the average.

    Floating-point buffers, such as the running statistics of batch norm, are averaged like weights: they belong to the
    weights they were measured with. A subclass defines `move`, and `due` if it does not average after every step.
    """

    stage = Stage.AVERAGING
    on_shards = True

    def __init__(self) -> None:
        self.count = 0  # weights that went into the average
        self.in_place = False  # whether training has ended and left the average in the model
        self._average: dict[str, Tensor] = {}
        self._pair: tuple[list[Tensor], list[Tensor]] | None = None  # averages and weights, found once for all steps

    def move(self, average: list[Tensor], weights: list[Tensor]) -> None:
        """Take the weights into the average, in place; `count` weights are in it already, at least one."""
        raise NotImplementedError

    def due(self, module: Module) -> bool:
        """Whether the weights after this step belong into the average."""
        return True

    def check(self, selection: Selection) -> None:
        """Refuse weights too coarse for an average to move."""
        if selection.precision in ("16-true", "bf16-true"):
            raise Refusal(
                f"{self.state_key} cannot average weights kept in 16 bits, whose rounding swallows the changes: "
                "take trainer.precision=bf16-mixed or 32-true"
            )

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Take the new weights into the average; the first ones are copied."""
        if not self.due(module):
            return
        average, weights = self._pair = self._pair or self._match(module)
        if self.count == 0:
            torch._foreach_copy_(average, weights)
        else:
            self.move(average, weights)
        self.count += 1

    def _match(self, module: Module) -> tuple[list[Tensor], list[Tensor]]:
        """Averages and weights in the same order, on the same device."""
        named = chain(module.model.named_parameters(), module.model.named_buffers())
        weights = {name: weight.detach() for name, weight in named if weight.is_floating_point()}
        if self.count == 0:
            self._average = {name: torch.empty_like(weight) for name, weight in weights.items()}
        elif self._average.keys() != weights.keys():
            names = ", ".join(sorted(self._average.keys() ^ weights.keys()))
            raise RecipeError(f"{self.state_key}: the average in the checkpoint is of another model; only one has {names}")
        self._average = {name: kept_like(self._average[name], weight) for name, weight in weights.items()}
        return parts(self._average.values()), parts(weights.values())

    @contextmanager
    def evaluation_weights(self, module: Module) -> Iterator[None]:
        """The average in place of the weights; they come back bit for bit."""
        if self.count == 0 or self.in_place:
            yield
            return
        average, weights = self._match(module)
        with torch.no_grad():
            kept = [weight.clone() for weight in weights]
            torch._foreach_copy_(weights, average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, kept)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin anew, or go on with what a checkpoint held."""
        if pl_module.steps_done == 0:
            self.count, self._average = 0, {}
        self.in_place, self._pair = False, None

    @torch.no_grad()
    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Leave the average in the model: it is what was trained."""
        if self.count:
            average, weights = self._match(pl_module)
            torch._foreach_copy_(weights, average)
            self.in_place = True

    def state_dict(self) -> dict[str, Any]:
        """The average by parameter name, and its count."""
        return {"average": dict(self._average), "count": self.count, "in_place": self.in_place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._average = {name: value.detach().clone() for name, value in state_dict["average"].items()}
        self.count, self.in_place, self._pair = state_dict["count"], state_dict["in_place"], None
