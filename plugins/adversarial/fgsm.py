"""The fast gradient sign method (Goodfellow et al., 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.adversarial._ascent import Bounds, Loss, fgsm
from plugins.adversarial._attack import Attack


class FGSM(Attack):
    """Train on adversarial examples made in one step along the sign of the gradient.

    x ← x + ε · sign(∇ₓ J), for l2 x + ε · ∇ₓ J / ‖∇ₓ J‖₂; clamped to the range of valid inputs. Two forward and backward passes
    a step. Robustness to stronger attacks can collapse (catastrophic overfitting): watch val/acc_pgd.

    Raises:
        Refusal: predicted labels in a regression; images outside of [0, 1] without a range.

    Source: Goodfellow et al., "Explaining and Harnessing Adversarial Examples", ICLR 2015; lecture A.
    """

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """One step of length ε."""
        return fgsm(x, loss, eps, self.norm, bounds)
