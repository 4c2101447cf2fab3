"""FGSM from a random start (Wong et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.adversarial._ascent import Bounds, Loss, pgd, random_start
from plugins.adversarial._attack import Attack
from plugins.base import declare


class FGSMRandomStart(Attack):
    """Train on adversarial examples made in one step from a random start in the ball, and put back into it.

    x′ = Π(x + η), η ~ U(−ε, ε), then Π(x′ + α · sign(∇ J(x′))), Π the projection onto the ball of radius ε around x and onto the range of
    valid inputs; for l2 η has a random direction and a length uniform in [0, ε], and the step goes along ∇ J / ‖∇ J‖₂. Two forward and
    backward passes a step, as FGSM, which collapses sooner (catastrophic overfitting): watch val/acc_pgd.

    Raises:
        Refusal: predicted labels in a regression; images outside of [0, 1] without a range.

    Source: Wong, Rice & Kolter, "Fast is better than free: Revisiting adversarial training", ICLR 2020.
    """

    eps: float = declare.number(
        "radius of the ball in the raw range", default=0.031373, least=0, note="8/255 of the pixel range", off=0.0
    )
    alpha: float | None = declare.number(
        "length of the step", default=None, above=0, null="1.25 eps", more="In the raw range; it rises with ε during warm-up."
    )

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """One projected step of length α from a random start."""
        alpha = 1.25 * eps if self.alpha is None else self.alpha * (eps / self.eps)
        return pgd(x, loss, eps, alpha, 1, self.norm, bounds, random_start(x, eps, self.norm, generator))
