"""Noise on gradients, which fades (Neelakantan et al., 2015)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from plugins.base import Module, Plugin, Stage, expect_nonnegative
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

    Args:
        eta: η, the variance in the first step, ≥ 0; 0 is an exact no-op. The paper takes the best of 0.01, 0.3 and 1.
        gamma: γ, how fast it fades, ≥ 0; 0: not at all.

    Raises:
        RecipeError: eta or gamma out of range.

    Source: Neelakantan et al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015.
    """

    stage = Stage.WRAPPER
    on_shards = True
    off = {"eta": 0.0}

    def __init__(self, eta: float = 0.01, gamma: float = 0.55) -> None:
        expect_nonnegative("eta", eta)
        expect_nonnegative("gamma", gamma)
        self.eta, self.gamma = eta, gamma

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Add the noise, and log its standard deviation."""
        if self.eta == 0:
            return
        deviation = standard_deviation(self.eta, self.gamma, module.steps_done)
        generator = module.generator(self.option, same_on_ranks=True)
        # in the model's order: that of the optimizer's groups depends on other options
        gradients = [parameter.grad for parameter in module.model.parameters() if parameter.grad is not None]
        add_noise(gradients, deviation, generator)
        self.record(module, "std", deviation)
