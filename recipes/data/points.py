"""Images as clouds of points, for models of sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plugins.base import expect_choice, expect_count
from recipes.data.base import Data
from recipes.data.digits import Digits
from recipes.data.numbers import to_unit_range
from recipes.data.split import Split
from recipes.data.torchvision import CLASSES, TorchvisionImages

if TYPE_CHECKING:
    from jaxtyping import Float

DIGITS = "digits"


def point_clouds(
    images: Float[Tensor, "samples channels height width"], points: int, generator: torch.Generator
) -> Float[Tensor, " samples {points} 2"]:
    """Points (x, y) of each image, drawn with replacement by its brightness.

    A point falls into a pixel with the probability brightness / Σ brightness, the mean over channels, and lies anywhere in it. The
    image is the square [−1, 1]², with y upwards; of one that is not square the longer side. A black image is taken as evenly bright.

    Args:
        images: not negative, of any range.
        points: of each cloud.
        generator: of the draws.
    """
    height, width = images.shape[2:]
    brightness = images.double().mean(1).flatten(1)
    brightness = torch.where(brightness.sum(1, keepdim=True) > 0, brightness, torch.ones_like(brightness))
    pixel = torch.multinomial(brightness, points, replacement=True, generator=generator)
    place = torch.stack([pixel % width, pixel // width], 2) + torch.rand(*pixel.shape, 2, generator=generator)
    middle = torch.tensor([width, height]) / 2
    return (place - middle) / middle.max() * torch.tensor([1.0, -1.0])


class PointClouds(Data):
    """Images as sets of points in the plane, floats (points, 2), for `model=pointnet` and `model=dgcnn`, with `preprocessing=none`.

    The points of an image are drawn by its brightness, once and for all: they depend on `split_seed` and on the place of the image in its
    data set alone.

    Source: Qi et al., "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", CVPR 2017, supplementary
    material, which does so with MNIST.

    Args:
        name: of the images: digits (no download), mnist, fashion_mnist, cifar10 or cifar100.
        points: of each cloud, ≥ 1.
        root: folder with NAME.npz or torchvision's files.
        download: whether torchvision may download what is missing.

    Raises:
        RecipeError: images that are not there.
    """

    def __init__(self, name: str = DIGITS, points: int = 128, root: str = "data", download: bool = False, **split: Any) -> None:
        super().__init__(**split)
        expect_choice("data.name", name, [DIGITS, *CLASSES])
        expect_count("data.points", points)
        self.name, self.points = name, points
        self.images: Data = Digits() if name == DIGITS else TorchvisionImages(name, root, download)

    def load(self) -> tuple[Split, Split | None]:
        """Clouds and labels, in the data set's own splits."""
        train, test = self.images.load()
        self.class_names = self.images.class_names
        return self._clouds(train, 2 * self.split_seed), None if test is None else self._clouds(test, 2 * self.split_seed + 1)

    def _clouds(self, split: Any, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        clouds = [point_clouds(to_unit_range(x), self.points, generator) for x in split.x.split(1000)]
        return Split(torch.cat(clouds).float(), split.targets)
