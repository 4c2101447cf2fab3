"""Spectral normalization (Miyato et al., 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from plugins.base import Module, Plugin, RecipeError, Stage
from plugins.parameters import named_parameters
from plugins.sites import RECURRENT

if TYPE_CHECKING:
    from jaxtyping import Float

FIRST, EPS = 16, 1e-12  # iterations before the first step; the smallest singular value that is divided by


def iterate(
    matrix: Float[Tensor, "rows columns"], u: Float[Tensor, " rows"], v: Float[Tensor, " columns"], times: int = 1
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " columns"]]:
    """u ← W v / ‖W v‖, v ← Wᵀ u / ‖Wᵀ u‖: both tend to the singular vectors of the largest singular value."""
    for _ in range(times):
        u = normalize(matrix.mv(v), dim=0, eps=EPS)
        v = normalize(matrix.t().mv(u), dim=0, eps=EPS)
    return u, v


class Normalized(nn.Module):
    """The parametrization W / (uᵀ W v) of a weight, whose vectors are improved by `improve` alone.

    Args:
        weight: as it is drawn.
        transposed: whether its outputs are in dimension 1, as those of a transposed convolution.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        rows, columns = self.matrix(weight).shape
        for name, size in (("u", rows), ("v", columns)):
            self.register_buffer(name, normalize(torch.randn(size, device=weight.device, dtype=weight.dtype), dim=0, eps=EPS))
        self.improve(weight, FIRST)

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as a matrix (outputs, inputs)."""
        return (weight.transpose(0, 1) if self.transposed else weight).flatten(1)

    @torch.no_grad()
    def improve(self, weight: Tensor, times: int = 1) -> None:
        """Bring the vectors nearer to those of a weight."""
        for kept, found in zip((self.u, self.v), iterate(self.matrix(weight), self.u, self.v, times), strict=True):
            kept.copy_(found)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight divided by its largest singular value."""
        # no product of matrices, which mixed precision would round
        largest = (self.u.unsqueeze(1) * self.matrix(weight) * self.v).sum()
        return weight / largest.clamp_min(EPS)


class SpectralNorm(Plugin):
    """Hold the largest singular value of each weight at 1, so that no layer stretches what it is given.

    W̄ = W / σ(W) with σ(W) ≈ uᵀ W v, in training and at test; W is trained, and after each step u and v take one step of the power iteration,
    after 16 before the first. As the vectors change with the step and not with each pass, accumulation and a second pass see the same W̄, and
    a run in which each step is one pass is that of torch's parametrization. A weight with more dimensions is a matrix of its outputs.
    Outside of `when` weights are as they are and the vectors rest: where it begins late these are of the weights before the first step, and
    σ is too small until some steps of the iteration have caught up.

    Raises:
        RecipeError: recurrent layers, whose weights are computed by no module of their own.
        Refusal: normalization=weight_standardization, for which weights have no scale; trainer=fsdp, where each process keeps only parts of the weights.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018; torch.nn.utils.parametrizations.
    """

    refuses = {
        "normalization/weight_standardization": "it takes weights of any scale for the same, so that their largest singular value would "
        "say nothing; take another normalization"
    }
    stage = Stage.INIT  # behind the initial weights, to which the first iterations belong

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Parametrize all weights, each once however many layers share it."""
        weights = {id(each.parameter) for each in named_parameters(model) if each.kind == "weight"}
        found: dict[int, Normalized] = {}
        self.layers: list[tuple[Tensor, Normalized]] = []
        for path, layer in list(model.named_modules()):
            for name, weight in list(layer.named_parameters(recurse=False)):
                if id(weight) not in weights:
                    continue
                self._expect_own(layer, f"{path}.{name}")
                if id(weight) not in found:
                    found[id(weight)] = Normalized(weight.detach(), isinstance(layer, _ConvTransposeNd))
                    self.layers.append((weight, found[id(weight)]))
                parametrize.register_parametrization(layer, name, found[id(weight)])
        return model

    def _expect_own(self, layer: nn.Module, name: str) -> None:
        if isinstance(layer, RECURRENT):
            why = "a weight of a recurrent layer, which reads it by no module of its own"
        elif isinstance(layer, parametrize.ParametrizationList):
            why = "which is parametrized already"
        else:
            return
        raise RecipeError(f"{self.state_key} cannot normalize {name}, {why}: choose another model, or leave it out")

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """One step of the power iteration with the new weights."""
        for weight, layer in self.layers:
            layer.improve(weight.detach())
