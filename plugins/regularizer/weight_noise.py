"""Gaussian noise on the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plugins.base import Batch, Module, Plugin, Stage, declare
from plugins.parameters import weights_of

if TYPE_CHECKING:
    from jaxtyping import Inexact


def gaussian_like(
    weight: Inexact[Tensor, "*shape"], std: float, relative: bool, generator: torch.Generator
) -> Inexact[Tensor, "*shape"]:
    """Noise n ~ N(0, std²), or N(0, (std · rms(w))²) with rms(w)² the mean of the squared weights. Shape kept."""
    noise = torch.empty_like(weight).normal_(generator=generator).mul_(std)
    return noise.mul_(weight.abs().square().mean().sqrt()) if relative else noise


@contextmanager
def noisy(weights: list[nn.Parameter], std: float, relative: bool, generator: torch.Generator) -> Iterator[None]:
    """Add noise to the weights in place, and put back copies of them, bit for bit, in the end."""
    with torch.no_grad():
        kept = [weight.clone() for weight in weights]
        for weight in weights:
            weight.add_(gaussian_like(weight, std, relative, generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)


class WeightNoise(Plugin):
    """Train weights whose neighbours do well too: each forward and backward pass sees the weights with noise on them.

    The gradient is ∇J(w + n), n ~ N(0, std²), and the update is made to w. Biases and norm layers get no noise. The two
    passes of a two-pass optimizer see the same n; each part of an accumulated step and each process has an n of its own.

    Source: Goodfellow et al., Deep Learning, 7.5; lecture A.
    """

    stage = Stage.WEIGHTS
    on_named_inputs = True
    on_class_maps = True

    std: float = declare.number("standard deviation of the noise", default=0.01, least=0, off=0.0)
    relative: bool = declare.flag("true: std is a share of the root mean square of each weight tensor", default=False)

    def around_pass(self, module: Module, batch: Batch) -> AbstractContextManager[Any]:
        """Noise on the weights during the pass."""
        return noisy(list(weights_of(module.model)), self.std, self.relative, module.generator(self.option))
