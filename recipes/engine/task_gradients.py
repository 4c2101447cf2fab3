"""The gradients of several tasks, which a technique makes one of: of all micro-batches and processes, once a closure call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from plugins.base import RecipeError

if TYPE_CHECKING:
    from jaxtyping import Float


class TaskGradients:
    """Gradients by task and parameter, added up over micro-batches; the penalties have a row of their own.

    A parameter that several tasks reach is shared: what `aggregate` makes of its gradients is its gradient. One that a single task
    reaches, such as its head, has that of this task. The gradient of the penalties is added to both.

    Args:
        parameters: of the model; those that are not trained are left out.
        tasks: their names, in the order of the rows.
        scaler: of gradients in precision 16-mixed. Objectives are scaled against underflow, `aggregate` sees gradients as they
            are, and parameters get scaled ones, which the scaler expects.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: Sequence[str], scaler: Any = None) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.tasks, self.scaler = tasks, scaler
        self._rows: list[list[Tensor | None]] = []  # one a task, and that of the penalties

    def add(self, losses: Mapping[str, Tensor], penalty: Tensor | None, share: float) -> None:
        """Add the gradients of a micro-batch, of which a `share` of the step's samples is."""
        objectives = [*(losses[task] for task in self.tasks), penalty]
        if not self._rows:
            self._rows = [[None] * len(self.parameters) for _ in objectives]
        lead = {row: each * share for row, each in enumerate(objectives) if each is not None and each.requires_grad}
        for row, objective in lead.items():
            if self.scaler is not None:
                objective = self.scaler.scale(objective)
            found = torch.autograd.grad(objective, self.parameters, retain_graph=row != max(lead), allow_unused=True)
            for at, gradient in enumerate(found):
                if gradient is not None:
                    before = self._rows[row][at]
                    self._rows[row][at] = gradient if before is None else before + gradient

    @torch.no_grad()
    def write(self, aggregate: Callable[[Float[Tensor, "tasks n"]], Float[Tensor, " n"]]) -> None:
        """Put the gradient of each parameter in place, the same on all processes.

        Raises:
            RecipeError: what `aggregate` returns is no tensor (n,).
        """
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._average_over_processes()
        *tasks, penalties = self._rows
        reached = [sum(row[at] is not None for row in tasks) for at in range(len(self.parameters))]
        shared = [at for at, count in enumerate(reached) if count > 1]
        together = self._together(tasks, shared, aggregate) if shared else {}
        for at, parameter in enumerate(self.parameters):
            own = next((row[at] for row in tasks if row[at] is not None), None)
            terms = [term for term in (together.get(at, own), penalties[at]) if term is not None]
            # a copy, because autograd may give one tensor to several parameters, and techniques write into gradients
            parameter.grad = sum(terms[1:], terms[0].clone(memory_format=torch.contiguous_format)) if terms else None

    def _together(self, tasks: list[list[Tensor | None]], shared: list[int], aggregate: Any) -> dict[int, Tensor]:
        kind = reduce(torch.promote_types, {self.parameters[at].dtype for at in shared})
        gradients = torch.stack([torch.cat([self._filled(row[at], at).flatten().to(kind) for at in shared]) for row in tasks])
        if self.scaler is not None:
            factor = self.scaler.scale(gradients.new_ones(()))  # a power of two: to divide by it loses nothing
            gradients = gradients / factor
        found = aggregate(gradients)
        if not isinstance(found, Tensor) or found.shape != gradients.shape[1:]:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise RecipeError(
                f"aggregate must make one gradient ({gradients.shape[1]},) of {tuple(gradients.shape)}, got {got}"
            )
        if self.scaler is not None:
            found = found * factor
        pieces = found.split([self.parameters[at].numel() for at in shared])
        return {
            at: piece.view_as(self.parameters[at]).to(self.parameters[at].dtype)
            for at, piece in zip(shared, pieces, strict=True)
        }

    def _filled(self, gradient: Tensor | None, at: int) -> Tensor:
        return torch.zeros_like(self.parameters[at]) if gradient is None else gradient

    def _average_over_processes(self) -> None:
        """Average all rows in one message; what the model of any process reaches counts as reached."""
        device, kind = self.parameters[0].device, reduce(torch.promote_types, {each.dtype for each in self.parameters})
        reached = torch.tensor([[each is not None for each in row] for row in self._rows], dtype=torch.uint8, device=device)
        dist.all_reduce(reached, op=dist.ReduceOp.MAX)
        places = [(row, at) for row, flags in enumerate(reached.tolist()) for at, flag in enumerate(flags) if flag]
        if not places:
            return
        flat = torch.cat([self._filled(self._rows[row][at], at).flatten().to(kind) for row, at in places])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for (row, at), piece in zip(places, flat.split([self.parameters[at].numel() for _, at in places]), strict=True):
            parameter = self.parameters[at]
            self._rows[row][at] = piece.view_as(parameter).to(parameter.dtype)
