"""AdamW without a schedule (Defazio et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Batch, Module, Option, Refusal, Selection, expect, expect_count, expect_nonnegative, expect_probability
from plugins.norm_statistics import measure_norms, measured_norms
from plugins.shards import part, parts

if TYPE_CHECKING:
    from jaxtyping import Float


def step_between(
    y: Float[Tensor, " ..."], z: Float[Tensor, " ..."], direction: Float[Tensor, " ..."], rate: float, beta: float, share: float
) -> None:
    """The update, in place: z ← z − rate · d, x ← (1 − share) x + share · z and y ← (1 − β) z + β x, without keeping x."""
    y.lerp_(z, share)
    y.add_(direction, alpha=rate * (beta * (1 - share) - 1))
    z.sub_(direction, alpha=rate)


class ScheduleFreeAdamW(Option, Optimizer):
    """AdamW whose average of the weights takes the place of a learning rate schedule, wherever training ends.

    Gradients are taken at y = (1 − β₁) z + β₁ x; z ← z − ε g / (√v̂ + eps), with v̂ as in Adam, and x ← (1 − c) x + c z with
    c = ε² / Σ ε² over all steps so far. The weights in the model are y while it trains; x is evaluated, saved as the best model and left in
    the model at the end. The statistics of batch norm belong to x: they are measured anew on the clean training split before each
    evaluation in training, which costs a forward pass over it.

    Args:
        params: parameters or groups of them.
        lr: learning rate ε, ≥ 0.
        betas: β₁, how far gradients are taken from z towards x, in (0, 1], and the decay rate of v, in [0, 1).
        eps: small constant against division by zero, ≥ 0.
        weight_decay: share of y that ε takes away from z in a step, ≥ 0.
        warmup_steps: optimizer steps in which ε rises from 0, ≥ 0.

    Raises:
        RecipeError: a parameter out of range.
        Refusal: a schedule beside it.

    Source: Defazio et al., "The Road Less Scheduled", NeurIPS 2024.
    """

    on_shards = on_named_inputs = on_class_maps = True
    calibrated_on = "train"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2.5e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, "eps": eps}.items():
            expect_nonnegative(name, value)
        expect(len(betas) == 2, "betas", "two numbers", betas)
        for name, value in {"betas[0]": betas[0], "betas[1]": betas[1]}.items():
            expect_probability(name, value)
        expect(betas[0] > 0, "betas[0]", "a number in (0, 1]", betas[0])
        expect(betas[1] < 1, "betas[1]", "a number in [0, 1)", betas[1])
        expect_count("warmup_steps", warmup_steps, 0)
        own = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "warmup_steps": warmup_steps}
        super().__init__(params, {**own, "k": 0, "largest_rate": 0.0, "weight_sum": 0.0})
        self.in_place = False  # whether training has ended and left x in the model
        self._frozen: set[int] = set()  # norm layers that are not trained, by id

    @classmethod
    def check(cls, selection: Selection) -> None:
        """Refuse a schedule."""
        chosen = [name for name in selection.chosen if name.startswith("scheduler/")]
        if chosen != ["scheduler/constant"] and (chosen or selection.scheduler is not None):
            raise Refusal(
                "optimizer/schedule_free takes the place of a schedule: take scheduler=constant, from Python none, or optimizer=adamw"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            k, (beta1, beta2) = group["k"], group["betas"]
            rate = float(group["lr"]) * (min(1.0, (k + 1) / group["warmup_steps"]) if group["warmup_steps"] else 1.0)
            group["largest_rate"] = max(rate, group["largest_rate"])
            group["weight_sum"] += group["largest_rate"] ** 2
            share = group["largest_rate"] ** 2 / group["weight_sum"] if group["weight_sum"] else 0.0
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["z"], state["exp_avg_sq"] = torch.clone(parameter), torch.zeros_like(parameter)
                y, z, second, gradient = parts([parameter, state["z"], state["exp_avg_sq"], parameter.grad])
                second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                direction = gradient / (second / (1 - beta2 ** (k + 1))).sqrt().add_(group["eps"])
                if group["weight_decay"]:
                    direction.add_(y, alpha=group["weight_decay"])
                step_between(y, z, direction, rate, beta1, share)
            group["k"] = k + 1
        return loss

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """See which norm layers are not trained by now: their statistics stay."""
        self._see(module)

    def _see(self, module: Module) -> None:
        self._frozen = {id(layer) for layer in measured_norms(module.model) if not layer.training}

    def _move_to_x(self) -> list[tuple[Tensor, Tensor]]:
        """Put x into the model; the tensors that were changed, and what they held."""
        kept = []
        for group in self.param_groups:
            for parameter in filter(self.state.__contains__, group["params"]):
                y, z = part(parameter.detach()), part(self.state[parameter]["z"])
                kept.append((y, y.clone()))
                y.lerp_(z, 1 - 1 / group["betas"][0])
        return kept

    @contextmanager
    def evaluation_weights(self, module: Module) -> Iterator[None]:
        """x in place of y, which comes back bit for bit, with the running statistics that belong to it."""
        if self.in_place:
            yield
            return
        statistics = [(buffer, buffer.clone()) for layer in measured_norms(module.model) for buffer in layer.buffers()]
        with torch.no_grad():
            kept = self._move_to_x()
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before in (*kept, *statistics):
                    tensor.copy_(before)

    def calibrate(self, module: Module, batches: Iterable[Batch]) -> None:
        """Measure the statistics of norm layers for x, which is in place."""
        if any(group["k"] for group in self.param_groups):
            measure_norms(module, batches, self._frozen)

    @torch.no_grad()
    def settle(self, module: Module) -> None:
        """Leave x in the model: it is what was trained."""
        self._see(module)  # no step may have been made since a checkpoint was loaded
        self._move_to_x()
        self.in_place = True
