"""Noise on gradients, which fades (Neelakantan et al., 2015)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from plugins.base import Module, Plugin, Stage, declare
from plugins.shards import kept_like, part


def standard_deviation(eta: float, gamma: float, step: int) -> float:
    """√(η / (1 + t)^γ) in step t, which begins at 0."""
    return (eta / (1 + step) ** gamma) ** 0.5


@torch.no_grad()
def add_noise(gradients: Iterable[Tensor], deviation: float, generator: torch.Generator) -> None:
    """Add noise N(0, deviation²) to each number, in place; of a gradient that is cut up the same as of the whole one."""
    for gradient in gradients:
        noise = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype, device=generator.device)
        part(gradient).add_(part(kept_like(noise, gradient)), alpha=deviation)


class GradientNoise(Plugin):
    """Add noise that fades to the gradient of each update, so that training leaves bad places early and settles late.

    g ← g + N(0, σ²), σ² = η / (1 + t)^γ, in step t = 0, 1, …; number by number, the same on all devices. It comes after clipping, which
    would shorten it, and only to the gradient that updates the weights: the first one of sam is left alone.

    Source: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015.
    """

    stage = Stage.WRAPPER
    on_shards = True

    eta: float = declare.number(
        "variance of the noise in the first step",
        default=0.01,
        least=0,
        off=0.0,
        more="The paper takes the best of 0.01, 0.3 and 1.",
    )
    gamma: float = declare.number("how fast it fades: the variance is eta / (1 + step)^gamma", default=0.55, least=0)

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Add the noise, and log its standard deviation."""
        deviation = standard_deviation(self.eta, self.gamma, module.steps_done)
        generator = module.generator(self.option, same_on_ranks=True)
        # in the model's order: that of the optimizer's groups depends on other options
        gradients = [parameter.grad for parameter in module.model.parameters() if parameter.grad is not None]
        add_noise(gradients, deviation, generator)
        self.record(module, "std", deviation)
