"""FGSM from a noisy start, without a projection (de Jorge et al., 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.adversarial._ascent import Bounds, Loss, clip, input_gradient, random_start, steepest
from plugins.adversarial._attack import Attack
from plugins.base import declare


class NFGSM(Attack):
    """Train on adversarial examples made in one step from inputs with noise, which nothing puts back into the ball.

    x′ = x + η with η ~ U(−2ε, 2ε), then x′ + α · sign(∇ J(x′)), both clamped to the range of valid inputs; for l2 η has a random
    direction and a length uniform in [0, 2ε], and the step goes along ∇ J / ‖∇ J‖₂. Two forward and backward passes a step, as
    FGSM, without its collapse in most settings. Examples lie as far as 2ε + α from x.

    Raises:
        Refusal: predicted labels in a regression; images outside of [0, 1] without a range.

    Source: de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training", NeurIPS 2022.
    """

    eps: float = declare.number(
        "half the size of the noise in the raw range", default=0.031373, least=0, note="8/255 of the pixel range", off=0.0
    )
    alpha: float | None = declare.number(
        "length of the step", default=None, above=0, null="eps", more="In the raw range; it rises with ε during warm-up."
    )

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """One step of length α from x with noise."""
        alpha = eps if self.alpha is None else self.alpha * (eps / self.eps)
        noisy = clip(x + random_start(x, 2 * eps, self.norm, generator), x, bounds)
        return clip(noisy + alpha * steepest(input_gradient(loss, noisy), self.norm), x, bounds)
