"""A network for sets of points that looks at neighbours, found anew in each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from plugins.base import expect, expect_count
from plugins.inputs import Entry
from plugins.neighbours import nearest
from recipes.models.base import expect_sizes
from recipes.models.points import PlaceNorm, PointModel, classifier, largest, mean

SLOPE = 0.2  # of the activations below 0


def edges(x: Tensor, neighbours: Tensor) -> Tensor:
    """[xᵢ, xⱼ − xᵢ] for each neighbour j of a point i: (samples, 2 channels, points, k) of features (samples, channels, points)."""
    samples, channels, points = x.shape
    index = neighbours.reshape(samples, 1, -1).expand(-1, channels, -1)
    others = x.gather(2, index).view(samples, channels, points, -1)
    center = x.unsqueeze(-1).expand_as(others)
    return torch.cat([center, others - center], 1)


class EdgeConvolution(nn.Module):
    """x′ᵢ = max_j φ(norm(W [xᵢ, xⱼ − xᵢ])) over the k points j that are nearest to i, itself among them.

    Args:
        taken: features of a point.
        given: features of what it returns.
        k: number of neighbours.
    """

    def __init__(self, taken: int, given: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.linear, self.norm = nn.Conv2d(2 * taken, given, 1, bias=False), PlaceNorm(given)
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Features (samples, given, points) of (samples, taken, points) with their mask (samples, points)."""
        neighbours = nearest(x, self.k, valid)
        there = None
        if valid is not None:
            others = valid.gather(1, neighbours.flatten(1)).view(neighbours.shape)
            there = others & valid.unsqueeze(-1)
        return largest(self.activation(self.norm(self.linear(edges(x, neighbours)), there)), there)


class DGCNN(PointModel):
    """Edge convolutions on the nearest neighbours, in the features of the layer before, then a layer on all of their results for each point,
    its maximum and mean over the points, and linear layers, all with batch normalization and leaky ReLU of slope 0.2.

    Samples are floats (points, coordinates), in any order; or a mapping of them and a mask (points,), true or 1 where there is a point.
    What stands where the mask leaves out changes nothing; a sample with fewer than k points has all of them as neighbours.

    Source: Wang et al., "Dynamic Graph CNN for Learning on Point Clouds", ACM Transactions on Graphics 2019.

    Args:
        shape: of a sample: (points, coordinates), or an entry for each of the inputs.
        outputs: size of the last layer.
        k: number of neighbours, the point itself among them, ≥ 1; at most as many as there are points.
        channels: features of a point after each edge convolution, ≥ 1.
        width: features of a point before the maximum and the mean, ≥ 1.
        hidden: units of each layer behind them, ≥ 1.
        points: name of the input that holds points; None: the only one beside the mask.
        mask: name of the input that says which points there are; None: "mask", if there is one.

    Raises:
        RecipeError: samples that are no points or fewer than k, a mask of another shape.
    """

    def __init__(
        self,
        shape: Sequence[int] | Mapping[str, Entry],
        outputs: int,
        k: int = 20,
        channels: Sequence[int] = (64, 64, 128, 256),
        width: int = 1024,
        hidden: Sequence[int] = (512, 256),
        points: str | None = None,
        mask: str | None = None,
    ) -> None:
        super().__init__("dgcnn", shape, points, mask)
        expect_count("model.k", k)
        expect(k <= self.shape[0], "model.k", f"at most {self.shape[0]}, the number of points", k)
        expect_sizes("model.channels", channels)
        expect(len(channels) > 0, "model.channels", "at least one number", list(channels))
        expect_count("model.width", width)
        expect_sizes("model.hidden", hidden)
        sizes = [self.shape[1], *channels]
        self.layers = nn.ModuleList([EdgeConvolution(taken, given, k) for taken, given in pairwise(sizes)])
        self.linear, self.norm = nn.Conv1d(sum(channels), width, 1, bias=False), PlaceNorm(width)
        self.activation = nn.LeakyReLU(SLOPE)
        self.head = classifier(2 * width, hidden, outputs, nn.LeakyReLU(SLOPE))

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Outputs (samples, outputs)."""
        x, valid = self.parts(inputs)
        found = []
        for layer in self.layers:
            x = layer(x, valid)
            found.append(x)
        x = self.activation(self.norm(self.linear(torch.cat(found, 1)), valid))
        return self.head(torch.cat([largest(x, valid), mean(x, valid)], 1))
