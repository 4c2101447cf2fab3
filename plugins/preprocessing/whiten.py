"""Whitening: features without correlation, and of unit variance (ZCA)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.base import Plugin, Refusal, Selection, Stage, declare
from plugins.preprocessing._layer import InputLayer, covariance

if TYPE_CHECKING:
    from jaxtyping import Float

LARGEST = 8192  # features, whose covariance takes 0.5 GiB


def whitening(covariance: Float[Tensor, "features features"], eps: float) -> Float[Tensor, "features features"]:
    """U (Λ + eps)^(−1/2) Uᵀ of a covariance U Λ Uᵀ; 0 along directions without variance, but for rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    there = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    factors = torch.where(there, (values.clamp_min(0) + eps).rsqrt(), 0.0)
    return (vectors * factors) @ vectors.T


class Whitened(InputLayer):
    """x ← (x − mean) W, of all features of a sample together, in the precision of the inputs."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, model: nn.Module, mean: Tensor, matrix: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("mean", mean.to("cpu", torch.get_default_dtype()))
        self.register_buffer("matrix", matrix.to("cpu", torch.get_default_dtype()))

    def transform(self, x: Tensor) -> Tensor:
        """Whiten."""
        with torch.autocast(x.device.type, enabled=False):  # what hardly varies is made large: rounding too
            return ((x.flatten(1) - self.mean) @ self.matrix).reshape(x.shape)


class WhitenInputs(Plugin):
    """Take out correlations between features by the covariance of the training split, and stay as near as can be to the inputs (ZCA).

    x ← (x − mean) U (Λ + eps)^(−1/2) Uᵀ, where U Λ Uᵀ is the covariance (÷ n) of all numbers of a sample, over the training samples only, and
    the same for every split. Directions that do not vary in training become 0 in every split. The covariance of d numbers has d², and is
    decomposed in about d³ operations: a minute for images of CIFAR-10.

    Raises:
        Refusal: samples of more than 8,192 numbers; several inputs by name; whole numbers that stand for something.
        RecipeError: training inputs that are not finite.

    Source: LeCun et al., "Efficient BackProp", 1998, section 4.3 (lecture D); Bell & Sejnowski, "The 'independent components' of natural
    scenes are edge filters", 1997.
    """

    stage = Stage.PREPROCESSING
    on_named_inputs = False

    eps: float = declare.number(
        "added to the variance of each direction, in squared units of the data",
        default=1e-5,
        least=0,
        more="Noise along directions that hardly vary is made larger, the smaller it is.",
    )

    def check(self, selection: Selection) -> None:
        """Refuse what has too many features."""
        shape = selection.setting.shape
        if not selection.setting.is_named and (count := math.prod(shape)) > LARGEST:
            raise Refusal(
                f"preprocessing/whiten takes all numbers of a sample together, and {count:,} are too many for their covariance (at most "
                f"{LARGEST:,}): type preprocessing=standardize"
            )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front, fitted; its values come from the checkpoint where a finished run is loaded."""
        inputs, count = self.setting.training_inputs, math.prod(self.setting.shape)
        if inputs is None:
            return Whitened(model, torch.zeros(count), torch.eye(count))
        mean, spread = covariance(inputs())
        return Whitened(model, mean, whitening(spread, self.eps))
