"""A network for sets of points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from plugins.base import expect
from plugins.inputs import Entry
from recipes.models.base import expect_sizes
from recipes.models.points import PlaceNorm, PointModel, classifier, largest


class PointLayer(nn.Module):
    """relu(norm(W x)) of each point by itself.

    Args:
        taken: features of a point.
        given: features of what it returns.
    """

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.linear, self.norm, self.relu = nn.Conv1d(taken, given, 1, bias=False), PlaceNorm(given), nn.ReLU()

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Features (samples, given, points) of (samples, taken, points) with their mask (samples, points)."""
        return self.relu(self.norm(self.linear(x), valid))


class PointNet(PointModel):
    """γ(max_i h(xᵢ)): the same layers for each point, the maximum over the points, then linear layers, all with batch normalization.

    Samples are floats (points, coordinates), in any order; or a mapping of them and a mask (points,), true or 1 where there is a point.
    What stands where the mask leaves out changes nothing. Without the networks that turn the input and the features (T-nets).

    Source: Qi et al., "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", CVPR 2017.

    Args:
        shape: of a sample: (points, coordinates), or an entry for each of the inputs.
        outputs: size of the last layer.
        channels: features of a point after each of its layers, ≥ 1.
        hidden: units of each layer behind the maximum, ≥ 1.
        points: name of the input that holds points; None: the only one beside the mask.
        mask: name of the input that says which points there are; None: "mask", if there is one.

    Raises:
        RecipeError: samples that are no points, a mask of another shape.
    """

    def __init__(
        self,
        shape: Sequence[int] | Mapping[str, Entry],
        outputs: int,
        channels: Sequence[int] = (64, 64, 64, 128, 1024),
        hidden: Sequence[int] = (512, 256),
        points: str | None = None,
        mask: str | None = None,
    ) -> None:
        super().__init__("pointnet", shape, points, mask)
        expect_sizes("model.channels", channels)
        expect(len(channels) > 0, "model.channels", "at least one number", list(channels))
        expect_sizes("model.hidden", hidden)
        sizes = [self.shape[1], *channels]
        self.layers = nn.ModuleList([PointLayer(taken, given) for taken, given in pairwise(sizes)])
        self.head = classifier(sizes[-1], hidden, outputs, nn.ReLU())

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Outputs (samples, outputs)."""
        x, valid = self.parts(inputs)
        for layer in self.layers:
            x = layer(x, valid)
        return self.head(largest(x, valid))
