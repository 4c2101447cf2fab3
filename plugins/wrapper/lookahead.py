"""Lookahead: slow weights that follow fast ones (Zhang et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from plugins.averaging._average import Averaging, numbers, wide
from plugins.base import Module, declare
from plugins.shards import part, whole

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def look_ahead(slow: list[Float[Tensor, " ..."]], fast: list[Float[Tensor, " ..."]], alpha: float) -> None:
    """φ ← φ + α (θ − φ), then θ ← φ, in place."""
    torch._foreach_lerp_(slow, [weight.to(kept.dtype) for kept, weight in zip(slow, fast, strict=True)], alpha)
    torch._foreach_copy_(fast, slow)


class Lookahead(Averaging):
    """Go k steps ahead, then only a part of the way: slow weights that follow the fast ones of whatever optimizer is chosen.

    After each k steps φ ← φ + α (θ − φ), then θ ← φ, with φ = θ at first; the state of the optimizer goes on. Evaluated, saved as the best
    model and left in the model at the end is φ + α (θ − φ), which is φ after each k steps: what its source returns. Running statistics, such as batch
    norm's, are those of the model, measured near φ. Of what is not trained any more φ = θ. It comes last in a step, behind what undoes an update.
    Costs no passes, and memory for one copy of the weights.

    Raises:
        RecipeError: a second technique that says which weights are evaluated, such as an average; a checkpoint of another model.

    Source: Zhang, Lucas, Hinton & Ba, "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019, algorithm 1.
    """

    to_begin = ""

    k: int = declare.count("steps of the optimizer between two of the slow weights", default=5)
    alpha: float = declare.number(
        "share of the way to the fast weights that the slow ones go", default=0.5, above=0, most=1, off=1.0
    )

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin with the weights before the first step in which it acts; forget them behind the last one."""
        if not self.acts(pl_module.progress):
            self.count, self._average = 0, {}
        elif self.count == 0:
            self._parameters = self._known_parameters(pl_module)
            self._average = {name: weight.to(wide(weight.dtype), copy=True) for name, weight in self._parameters.items()}
            self.count = 1

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Count the step, and have the slow weights follow if it is the k-th; log how far ahead the fast ones were.

        A step that a guard has undone leaves none: they begin anew with the weights that it has put back.
        """
        if module.step_undone:
            self.count, self._average = 0, {}
            return
        self.count += 1
        if (self.count - 1) % self.k:
            return
        if self._parameters is None:
            self._parameters = self._known_parameters(module)
        for name in self._resting(module):
            part(self._average[name]).copy_(part(self._parameters[name]))
        ahead = [weight - self._average[name] for name, weight in self._parameters.items()]
        self.record(module, "distance", whole(get_total_norm(ahead)))
        look_ahead(numbers(self._average[name] for name in self._parameters), numbers(self._parameters.values()), self.alpha)

    def _resting(self, module: Module) -> set[str]:
        """The parameters that are averaged and not trained, or not any more, by name."""
        return {
            name for name, parameter in module.model.named_parameters() if name in self._average and not parameter.requires_grad
        }

    def _put(self, module: Module) -> list[tuple[nn.Module | None, str, Tensor, Tensor]]:
        kept, resting = super()._put(module), self._resting(module)
        for _, name, weight, fast in kept:
            part(weight).lerp_(fast, 1.0 if name in resting else self.alpha)
        return kept

    @contextmanager
    def evaluation_weights(self, module: Module) -> Iterator[None]:
        """The slow weights, as if they followed now, in place of the fast ones, which come back bit for bit."""
        with super().evaluation_weights(module):
            before, self.in_place = self.in_place, True  # within they are not looked for once more
            try:
                yield
            finally:
                self.in_place = before
