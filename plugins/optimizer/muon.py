"""Muon: momentum, made orthogonal (Jordan et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from plugins.base import Named, Option, expect, expect_count, expect_nonnegative, expect_probability
from plugins.parameters import TABLES

if TYPE_CHECKING:
    from jaxtyping import Float

QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at zero: singular values end between 0.7 and 1.2


def orthogonalize(matrix: Float[Tensor, " rows columns"], steps: int = 5) -> Float[Tensor, " rows columns"]:
    """About U Vᵀ of the matrix U S Vᵀ, by Newton-Schulz steps X ← aX + (bA + cA²)X with A = XXᵀ, in 16 bits."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


class Muon(Option, Optimizer):
    """Step along the momentum made orthogonal, so that all directions of a matrix are learned alike; the rest by AdamW.

    v ← μ v + (1 − μ) g, θ ← θ − ε · weight_decay · θ − 0.2 √max(n, m) · ε · orthogonal(v) with v (n, m), and (1 − μ) g + μ v for v with
    `nesterov`: the size of AdamW's steps, so that one learning rate suits both. Matrices are the weights of all layers but tables of
    embeddings and the last layer, with several tasks their heads; a convolution's is (outputs, inputs · height · width). Orthogonal by five
    Newton-Schulz steps.

    Args:
        params: parameters or groups of them; a group says `algorithm`: "muon" or "adamw"; without, what has two dimensions is a matrix.
        lr: learning rate ε, ≥ 0.
        weight_decay: share of each weight that lr takes away in a step, ≥ 0.
        momentum: share μ of the velocity that is kept in each step, in [0, 1).
        nesterov: whether the gradient is added once more.
        steps: Newton-Schulz steps, ≥ 1.
        betas: AdamW's decay rates, in [0, 1).
        eps: AdamW's small constant against division by zero, ≥ 0.

    Raises:
        RecipeError: a parameter out of range.
        Refusal: trainer=fsdp, where no process has a whole matrix.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is Scalable for LLM
    Training", 2025 (the size of its steps).
    """

    on_shards = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        for name, value in {"lr": lr, "weight_decay": weight_decay, "eps": eps}.items():
            expect_nonnegative(name, value)
        expect(len(betas) == 2, "betas", "two numbers", betas)
        for name, value in {"momentum": momentum, "betas[0]": betas[0], "betas[1]": betas[1]}.items():
            expect_probability(name, value)
            expect(value < 1, name, "a number in [0, 1)", value)
        expect_count("steps", steps)
        own = {"momentum": momentum, "nesterov": nesterov, "steps": steps, "betas": tuple(betas), "eps": eps, "algorithm": None}
        own["decoupled_weight_decay"] = True  # as torch tells it
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **own})

    @classmethod
    def group_parameters(cls, named: Sequence[Named]) -> Sequence[Mapping[str, Any]]:
        """Tell matrices from the rest."""
        weights = [each for each in named if each.kind == "weight" and each.parameter.ndim > 1]
        last = weights[-1].place if weights else None
        matrices = {id(each) for each in weights if not isinstance(each.module, TABLES) and each.place is not last}
        return [{"algorithm": "muon" if id(each) in matrices else "adamw"} for each in named]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_gradients = [parameter for parameter in group["params"] if parameter.grad is not None]
            matrices = [
                each for each in with_gradients if (group["algorithm"] or ("muon" if each.ndim > 1 else "adamw")) == "muon"
            ]
            for matrix in matrices:
                self._move(matrix, group)
            self._adamw([each for each in with_gradients if all(each is not matrix for matrix in matrices)], group)
        return loss

    def _move(self, matrix: Tensor, group: Mapping[str, Any]) -> None:
        gradient: Any = matrix.grad
        velocity = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
        velocity.lerp_(gradient, 1 - group["momentum"])
        direction = (gradient.lerp(velocity, group["momentum"]) if group["nesterov"] else velocity).flatten(1)
        size = 0.2 * math.sqrt(max(direction.shape)) * group["lr"]
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(orthogonalize(direction, group["steps"]).view_as(matrix), alpha=-size)

    def _adamw(self, rest: list[Tensor], group: Mapping[str, Any]) -> None:
        kept = [self.state[each] for each in rest]
        for each, state in zip(rest, kept, strict=True):
            state.setdefault("step", torch.zeros((), dtype=torch.float32))
            state.setdefault("exp_avg", torch.zeros_like(each))
            state.setdefault("exp_avg_sq", torch.zeros_like(each))
        first, second, counts = ([state[name] for state in kept] for name in ("exp_avg", "exp_avg_sq", "step"))
        gradients: list[Any] = [each.grad for each in rest]
        (beta1, beta2), numbers = group["betas"], {name: group[name] for name in ("lr", "weight_decay", "eps")}
        adamw(rest, gradients, first, second, [], counts, amsgrad=False, beta1=beta1, beta2=beta2, maximize=False, **numbers)
