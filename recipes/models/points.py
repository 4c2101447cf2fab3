"""What models of sets of points share."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from plugins.base import expect
from plugins.inputs import Entry
from recipes.models.named import find_places


class PlaceNorm(nn.Module):
    """Batch normalization over samples and places, of which those that a mask leaves out count for nothing.

    Args:
        channels: how many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Features (samples, channels, *places) with a mask (samples, *places), or None; 0 where it leaves out."""
        if valid is None:
            return self.norm(x.flatten(2)).view(x.shape)
        if (
            not self.norm.training and getattr(self.norm, "running_mean", None) is not None
        ):  # each number by itself: none need be sought
            return self.norm(x.flatten(2)).view(x.shape).masked_fill(~valid.unsqueeze(1), 0)
        rows = x.movedim(1, -1)
        found = self.norm(rows[valid])
        return found.new_zeros(rows.shape).index_put((valid,), found).movedim(-1, 1)


class PointModel(nn.Module):
    """A model of sets of points, floats (points, coordinates), or a mapping of them and a mask (points,), true or 1 where a point is.

    Args:
        option: its name, for the errors.
        shape: of a sample: (points, coordinates), or an entry for each of the inputs.
        points: name of the input that holds points; None: the only one beside the mask.
        mask: name of the input that says which points there are; None: "mask", if there is one.

    Raises:
        RecipeError: samples that are no points, a mask of another shape.
    """

    takes_named_inputs: ClassVar[bool] = True

    def __init__(self, option: str, shape: Sequence[int] | Mapping[str, Entry], points: str | None, mask: str | None) -> None:
        super().__init__()
        self.points: str | None = None
        self.mask: str | None = None
        entry = Entry((), "") if isinstance(shape, Mapping) else Entry(tuple(shape), "float32")
        if isinstance(shape, Mapping):
            self.points, self.mask = find_places(shape, option, "points", points, mask)
            entry = shape[self.points]
        asked = "points (points, coordinates) of floats, such as data=npz data.input=[points]"
        fits = entry.kind.startswith("float") and len(entry.shape) == 2
        expect(fits, f"data for model={option}", asked, f"{entry.kind} {entry.shape}")
        self.shape = entry.shape

    def parts(self, inputs: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Coordinates (samples, coordinates, points), 0 where no point is, and the mask (samples, points), None where all count."""
        if isinstance(inputs, Tensor):
            return inputs.transpose(1, 2), None
        assert self.points is not None, "made for one tensor"
        x = inputs[self.points].transpose(1, 2)
        if self.mask is None:
            return x, None
        valid = inputs[self.mask] > 0
        return x.masked_fill(~valid.unsqueeze(1), 0), valid


def largest(x: Tensor, valid: Tensor | None) -> Tensor:
    """The maximum of features (samples, channels, *places) over the last place, of those that a mask (samples, *places) keeps; of none 0."""
    if valid is None:
        return x.amax(-1)
    found = x.masked_fill(~valid.unsqueeze(1), -torch.inf).amax(-1)
    return found.masked_fill(~valid.any(-1).unsqueeze(1), 0)


def mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of features (samples, channels, points) over the points that a mask (samples, points) keeps; of none 0."""
    if valid is None:
        return x.mean(-1)
    return x.masked_fill(~valid.unsqueeze(1), 0).sum(-1) / valid.sum(1, keepdim=True).clamp_min(1)


def classifier(features: int, hidden: Sequence[int], outputs: int, activation: nn.Module) -> nn.Sequential:
    """Linear layers, of which all but the last are normalized and activated."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(features, size, bias=False), nn.BatchNorm1d(size), copy.deepcopy(activation)]
        features = size
    return nn.Sequential(*layers, nn.Linear(features, outputs))
