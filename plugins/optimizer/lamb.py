"""LAMB: layerwise adaptive moments for large batches (You et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugins.base import Refusal, Selection
from plugins.optimizer._library import OfTimm, expect_betas, expect_numbers

JOIN_LATE = ("finetuning/gradual", "finetuning/linear_probe")


class Lamb(OfTimm):
    """Adam's step of each parameter made as long as the parameter, so that large batches can take large rates.

    θ ← θ − ε · (‖θ‖ / ‖u‖) · u with u = m̂ / (√v̂ + eps) + weight_decay · θ, m̂ and v̂ as in Adam; the ratio is 1 where one of the norms is 0.
    The gradient is not clipped: add clipping=norm for that. Done by timm (extra `timm`).

    Args:
        params: parameters or groups of them.
        lr: learning rate ε, ≥ 0.
        betas: decay rates of the running averages, in [0, 1).
        eps: small constant against division by zero, ≥ 0.
        weight_decay: share of θ in the step whose length is set, ≥ 0.
        always_adapt: whether parameters without weight decay, such as those that `no_decay` names, have the length of their steps set too.

    Raises:
        RecipeError: a parameter out of range; timm is not there.
        Refusal: trainer=fsdp, where no process has the norm of a whole layer; `always_adapt=False` where parameters join late.

    Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        always_adapt: bool = True,
    ) -> None:
        expect_numbers(lr=lr, eps=eps, weight_decay=weight_decay)
        expect_betas(betas)
        settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "always_adapt": always_adapt}
        super().__init__(self.library().Lamb(params, max_grad_norm=None, **settings))

    def check(self, selection: Selection) -> None:
        """Refuse to leave the length of a late parameter's steps to averages that are corrected for steps it has not made."""
        super().check(selection)
        late = next((name for name in JOIN_LATE if selection.has(name)), None)
        if late and any(group["weight_decay"] == 0 and not group["always_adapt"] for group in self.param_groups):
            raise Refusal(
                f"{late} cannot be combined with optimizer.always_adapt=false of {self.state_key}: it counts the steps of a group together, "
                f"so parameters without weight decay that join late would take far too long ones; leave always_adapt out"
            )
