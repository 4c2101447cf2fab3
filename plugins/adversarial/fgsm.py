"""The fast gradient sign method (Goodfellow et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from plugins.adversarial._ascent import Bounds, Loss, fgsm
from plugins.adversarial._attack import Attack


class FGSM(Attack):
    """Train on adversarial examples made in one step along the sign of the gradient.

    x ← x + ε · sign(∇ₓ J), for l2 x + ε · ∇ₓ J / ‖∇ₓ J‖₂; clamped to the range of valid inputs. Two forward and backward passes
    a step. Robustness to stronger attacks can collapse (catastrophic overfitting): watch val/acc_pgd.

    Args:
        eps: ε ≥ 0, the size of the perturbation in the raw range: 0.031373 is 8/255 of the pixel range; 0 is an exact no-op.
        norm: linf | l2, the norm in which ε is measured, for each sample.
        clean: share of each batch that is left clean, in [0, 1].
        warmup_steps: steps over which ε rises linearly from 0.
        eval_mode: whether batch norm and dropout are in evaluation mode while crafting.
        label: true | predicted, the label whose loss is raised; predicted avoids label leaking.
        eval_samples: samples attacked in each evaluation, the first ones of the split; 0 leaves the metrics out.
        range: [lo, hi], the valid inputs in the raw range, each end a number, a list of one a channel, or None for no
            limit. Left out: [0, 1] for images that lie within it, no limit for data that are no images.
        eval_eps: ε ≥ 0 of the attacks in evaluations; `eps` when left out.

    Raises:
        RecipeError: a parameter out of range.
        Refusal: predicted labels in a regression; images outside of [0, 1] without a range.

    Source: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015; lecture A.
    """

    def __init__(
        self,
        eps: float = 0.031373,
        norm: str = "linf",
        clean: float = 0.0,
        warmup_steps: int = 0,
        eval_mode: bool = True,
        label: str = "true",
        eval_samples: int = 1000,
        range: Sequence[Any] | None = None,
        eval_eps: float | None = None,
    ) -> None:
        super().__init__(eps, norm, clean, warmup_steps, eval_mode, label, eval_samples, range, eval_eps)

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """One step of length ε."""
        return fgsm(x, loss, eps, self.norm, bounds)
