"""Projected gradient descent (Madry et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from plugins.adversarial._ascent import Bounds, Loss, pgd, random_start
from plugins.adversarial._attack import Attack
from plugins.base import expect_count, expect_positive


class PGD(Attack):
    """Train on adversarial examples made in several small steps, each projected back into the ball.

    x′ ← Π(x′ + α · sign(∇ J(x′))), for l2 along ∇ J / ‖∇ J‖₂, from a random start in the ball; Π is the projection onto
    the ball of radius ε around x and onto the range of valid inputs. `steps` + 1 forward and backward passes a step.

    Args:
        eps: ε ≥ 0, the radius of the ball in the raw range: 0.031373 is 8/255 of the pixel range; 0 is an exact no-op.
        alpha: α > 0, the length of a step in the raw range; ε/4 when left out. It rises with ε during warm-up.
        steps: steps of the attack in training, ≥ 1. Evaluations always make 10.
        norm: linf | l2, the norm in which ε is measured, for each sample.
        clean: share of each batch that is left clean, in [0, 1].
        warmup_steps: steps over which ε rises linearly from 0.
        eval_mode: whether batch norm and dropout are in evaluation mode while crafting.
        label: true | predicted, the label whose loss is raised.
        eval_samples: samples attacked in each evaluation, the first ones of the split; 0 leaves the metrics out.
        range: [lo, hi], the valid inputs in the raw range, each end a number, a list of one a channel, or None for no
            limit. Left out: [0, 1] for images that lie within it, no limit for data that are no images.
        eval_eps: ε ≥ 0 of the attacks in evaluations; `eps` when left out.

    Raises:
        RecipeError: a parameter out of range.
        Refusal: predicted labels in a regression; images outside of [0, 1] without a range.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """

    def __init__(
        self,
        eps: float = 0.031373,
        alpha: float | None = None,
        steps: int = 7,
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
        if alpha is not None:
            expect_positive("alpha", alpha)
        expect_count("steps", steps)
        self.alpha, self.steps = alpha, steps

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """Several projected steps from a random start."""
        alpha = eps / 4 if self.alpha is None else self.alpha * (eps / self.eps)
        return pgd(x, loss, eps, alpha, self.steps, self.norm, bounds, random_start(x, eps, self.norm, generator))
