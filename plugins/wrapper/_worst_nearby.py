"""What techniques share that update by the gradient at the worst point nearby."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Module, Named, OptimizerWrapper, Plugin, Refusal, Selection, Stage
from plugins.parameters import named_parameters
from plugins.shards import part, parts


class MovedUphill(OptimizerWrapper):
    """An optimizer that updates the weights by the gradient taken where `perturb` has moved them.

    After a step `perturbation_norm` and `sharpness` (the loss there minus the loss here) are scalar tensors, or None where
    nothing was moved. A subclass that asks for the first gradient too says `keeps_first`, and gets it in `combine`.

    `places` are the parameters that a subclass treats in a way of their own, by their places in `parameters`; None: those with several
    dimensions.
    """

    keeps_first: ClassVar[bool] = False

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.perturbation_norm: Tensor | None = None
        self.sharpness: Tensor | None = None
        self.places: frozenset[int] | None = None

    def perturb(self, weights: Sequence[Tensor]) -> Tensor:
        """Move weights, all of which have a gradient, in place; their gradients may be used up. The norm of what was added."""
        raise NotImplementedError

    def combine(self, weights: Sequence[Tensor], first: Sequence[Tensor]) -> None:
        """Change the gradients of `weights`, taken where these were moved to; `first` are those from before."""

    def with_gradient(self) -> list[Tensor]:
        """The parameters that have a gradient, in their order."""
        return [parameter for parameter in self.parameters if parameter.grad is not None]

    def placed(self) -> set[int]:
        """The identities of the parameters at `places`."""
        return {
            id(parameter)
            for place, parameter in enumerate(self.parameters)
            if (parameter.ndim > 1 if self.places is None else place in self.places)
        }

    def gradients(self, closure: Callable[[], Tensor]) -> Tensor:
        """The gradient at the worst point."""
        loss = closure()
        weights = self.with_gradient()
        first: list[Tensor] = [weight.grad.clone() for weight in weights] if self.keeps_first else []  # type: ignore[union-attr]
        # Copies, and not a subtraction afterwards, so that not one bit is lost.
        kept = [part(weight.detach()).clone() for weight in weights]
        with torch.no_grad():
            self.perturbation_norm = self.perturb(weights)
        worst = closure()
        with torch.no_grad():
            torch._foreach_copy_(parts(weights), kept)
            self.combine(weights, first)
        self.sharpness = worst.detach() - loss.detach()
        return loss


class WorstNearby(Plugin):
    """Updates the weights by the gradient at the worst point nearby; a subclass makes the wrapper that knows where it is."""

    stage = Stage.WRAPPER
    on_shards = True

    def make(self, optimizer: Optimizer) -> MovedUphill:
        """The wrapper."""
        raise NotImplementedError

    def stands_out(self, named: Named) -> bool:
        """Whether the wrapper treats a parameter in a way of its own."""
        return False

    def check(self, selection: Selection) -> None:
        """Refuse loss scaling, and another one of these."""
        if selection.precision == "16-mixed":
            raise Refusal(
                f"{self.state_key} cannot use the scaled gradients of trainer.precision=16-mixed: take bf16-mixed or 32-true"
            )
        for other in selection.plugins:
            if isinstance(other, WorstNearby) and other.state_key != self.state_key:
                raise Refusal(
                    f"{self.state_key} cannot be combined with {other.state_key}: each moves the weights to the worst point "
                    f"nearby, and differs in where that is; leave one of the two out"
                )

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Put the wrapper around the optimizer."""
        self.wrapper = self.make(optimizer)
        return self.wrapper

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Tell the wrapper which parameters it treats in a way of their own."""
        chosen = {id(named.parameter) for named in named_parameters(pl_module.model) if self.stands_out(named)}
        parameters = self.wrapper.parameters
        self.wrapper.places = frozenset(place for place, parameter in enumerate(parameters) if id(parameter) in chosen)

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Log the size of the perturbation and what it did to the loss."""
        if self.wrapper.perturbation_norm is not None and self.wrapper.sharpness is not None:
            self.record(module, "perturbation_norm", self.wrapper.perturbation_norm)
            self.record(module, "sharpness", self.wrapper.sharpness)
