"""Projected gradient descent (Madry et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.adversarial._ascent import Bounds, Loss, pgd, random_start
from plugins.adversarial._attack import Attack
from plugins.base import declare


class PGD(Attack):
    """Train on adversarial examples made in several small steps, each projected back into the ball.

    x′ ← Π(x′ + α · sign(∇ J(x′))), for l2 along ∇ J / ‖∇ J‖₂, from a random start in the ball; Π is the projection onto
    the ball of radius ε around x and onto the range of valid inputs. `steps` + 1 forward and backward passes a step.

    Raises:
        Refusal: predicted labels in a regression; images outside of [0, 1] without a range.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """

    eps: float = declare.number(
        "radius of the ball in the raw range", default=0.031373, least=0, note="8/255 of the pixel range", off=0.0
    )
    alpha: float | None = declare.number(
        "length of a step", default=None, above=0, null="eps/4", more="In the raw range; it rises with ε during warm-up."
    )
    steps: int = declare.count("steps in training", default=7, note="evaluations make eval_steps")

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """Several projected steps from a random start."""
        alpha = eps / 4 if self.alpha is None else self.alpha * (eps / self.eps)
        return pgd(x, loss, eps, alpha, self.steps, self.norm, bounds, random_start(x, eps, self.norm, generator))
