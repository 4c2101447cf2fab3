"""The layer in front of a model that prepares raw inputs, and the statistics of the training split it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.base import RecipeError

if TYPE_CHECKING:
    from jaxtyping import Float


class InputLayer(nn.Module):
    """A model that takes raw inputs: `transform` them, then run the wrapped model.

    What a subclass fits it keeps in buffers, so it moves, saves and loads with the weights.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def transform(self, x: Tensor) -> Tensor:
        """Prepared inputs from raw ones, both (samples, *sample shape)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The model's outputs for raw inputs."""
        return self.model(self.transform(x))


class Affine(InputLayer):
    """x ← (x − shift) · scale, element by element or channel by channel."""

    shift: Tensor
    scale: Tensor

    def __init__(self, model: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("shift", shift.to("cpu", torch.get_default_dtype()))
        self.register_buffer("scale", scale.to("cpu", torch.get_default_dtype()))

    def transform(self, x: Tensor) -> Tensor:
        """Shift and scale."""
        return (x - self.shift) * self.scale


def statistics_shape(shape: Sequence[int], per: str | None) -> tuple[int, ...]:
    """The shape of one number a channel (C, 1, ...) or a feature (*shape); by default images have channels, others features."""
    per = per or ("channel" if len(shape) == 3 else "feature")
    return (shape[0], *(1 for _ in shape[1:])) if per == "channel" else tuple(shape)


def moments(pieces: Iterable[Tensor], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance (÷ n) over all samples, and over the positions where `shape` is 1, in double precision.

    One pass over pieces (samples, *sample shape), merged as in Chan et al., "Updating formulae and a pairwise algorithm
    for computing sample variances", 1979: no difference of large sums.
    """
    count, mean, squares = 0, torch.zeros(1), torch.zeros(1)
    for piece in pieces:
        rows = _rows(piece, shape)
        new, here = len(rows), rows.mean(0)
        difference = here - mean.to(here)
        mean = mean.to(here) + difference * (new / (count + new))
        squares = squares.to(here) + (rows - here).square().sum(0) + difference.square() * (count * new / (count + new))
        count += new
    _expect_known(count, mean + squares)
    return mean.reshape(tuple(shape)), (squares / count).reshape(tuple(shape))


def covariance(pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (÷ n, d × d) of all d numbers of a sample, in double precision, merged as by `moments`."""
    count, mean, products = 0, torch.zeros(1), torch.zeros(1)
    for piece in pieces:
        rows = piece.double().flatten(1)
        new, here = len(rows), rows.mean(0)
        difference, centred = here - mean.to(here), rows - here
        mean = mean.to(here) + difference * (new / (count + new))
        products = products.to(here) + centred.T @ centred + difference.outer(difference) * (count * new / (count + new))
        count += new
    _expect_known(count, products)
    return mean, products / count


def ends(pieces: Iterable[Tensor], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The smallest and the largest number over all samples, and over the positions where `shape` is 1, in double precision."""
    smallest, largest = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    count = 0
    for piece in pieces:
        rows = _rows(piece, shape)
        low, high = rows.aminmax(dim=0)
        smallest, largest = torch.minimum(low, smallest.to(low)), torch.maximum(high, largest.to(high))
        count += len(rows)
    _expect_known(count, smallest + largest)
    return smallest.reshape(tuple(shape)), largest.reshape(tuple(shape))


def _rows(piece: Tensor, shape: Sequence[int]) -> Tensor:
    """One row for each sample and position that share a number, one column for each number to compute."""
    if shape[0] == torch.Size(shape).numel():
        return piece.double().movedim(1, -1).reshape(-1, shape[0])
    return piece.double().flatten(1)


def _expect_known(count: int, numbers: Tensor) -> None:
    if count == 0:
        raise RecipeError("the training split must have samples to fit the preprocessing to, got none")
    if not bool(torch.isfinite(numbers).all()):
        raise RecipeError("the training inputs must be finite numbers, got NaN or Inf among them: clean the data")


def inverse_std(variance: Float[Tensor, "*shape"], eps: float) -> Float[Tensor, "*shape"]:
    """1/√variance, and 0 where the standard deviation is eps or less. Shape kept."""
    std = variance.sqrt()
    return torch.where(std > eps, 1 / std, 0.0)
