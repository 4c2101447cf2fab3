"""Test-time augmentation: the mean over several views of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from plugins.base import Module, Plugin, Refusal, Selection, Stage, declare
from plugins.inference._probabilities import probabilities

if TYPE_CHECKING:
    from jaxtyping import Float


def scaled(x: Float[Tensor, "samples channels H W"], factor: float) -> Float[Tensor, "samples channels H W"]:
    """Images enlarged around their middle and cut to their size; shrunk ones are filled up with the pixels of their edges."""
    if factor == 1:
        return x
    size = [max(1, round(factor * length)) for length in x.shape[-2:]]
    resized = F.interpolate(x, size, mode="bilinear", antialias=factor < 1, align_corners=False)
    before = [(there - length) // 2 for there, length in zip(size, x.shape[-2:], strict=True)]
    if factor > 1:
        top, left = before
        return resized[..., top : top + x.shape[-2], left : left + x.shape[-1]]
    top, left = (-there for there in before)
    return F.pad(resized, (left, x.shape[-1] - size[1] - left, top, x.shape[-2] - size[0] - top), mode="replicate")


def corners(x: Float[Tensor, "samples channels H W"], pixels: int) -> Iterator[Float[Tensor, "samples channels H W"]]:
    """The images, then windows of their size out of the four corners of what they are with their edges repeated around them."""
    yield x
    if pixels:
        padded = F.pad(x, (pixels,) * 4, mode="replicate")
        for top in (0, 2 * pixels):
            for left in (0, 2 * pixels):
                yield padded[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def _are_factors(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(type(each) in (int, float) and math.isfinite(each) and each > 0 for each in value)


class TestTimeAugmentation(Plugin):
    """Predict by the mean over views of each image: as it is, mirrored, cut out at other places, in other sizes.

    p(y | x) = 1/V Σᵥ p(y | v(x)) over all V combinations of the views that are chosen; of several labels the mean of the probability of each, of
    a regression of the predictions. What is predicted for each pixel of a mirrored image is mirrored back. V forward passes.

    Raises:
        Refusal: the data are not images; class maps with crops or scales, which would move their pixels.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012, section 4.1; Simonyan &
    Zisserman, "Very Deep Convolutional Networks", ICLR 2015, section 3.2 (scales).
    """

    __test__ = False  # no class of tests
    stage = Stage.INFERENCE
    on_named_inputs = False
    on_class_maps = True

    flip: bool = declare.flag("whether each view is seen mirrored, left to right, too", default=True, off=False)
    crops: int = declare.count(
        "pixels by which the image is moved towards each of its corners, for four views more",
        default=0,
        least=0,
        note="0: none",
        off=0,
    )
    scales: list[float] = declare.value(
        "factors by which images are enlarged around their middle, a view for each",
        "a list of numbers above 0",
        _are_factors,
        default=[1.0],
        off=[1.0],
    )

    def check(self, selection: Selection) -> None:
        """Refuse what has no such views."""
        setting = selection.setting
        if not setting.is_image:
            raise Refusal(
                f"inference/tta needs images (channels, height, width), but a sample has the shape {setting.shape}: choose data of images or "
                f"leave tta out"
            )
        if setting.has_maps and (self.crops or list(self.scales) != [1.0]):
            raise Refusal(
                "inference/tta moves pixels by crops and scales, and these targets have a class for each pixel (class maps): type "
                "inference.crops=0 'inference.scales=[1.0]'"
            )
        for task in setting.tasks:
            if task.shape and task.shape != tuple(setting.shape[1:]):
                raise Refusal(
                    f"inference/tta mirrors predictions back as it mirrors pixels, and target {task.name or 'y'} has places {task.shape} for "
                    f"images of {tuple(setting.shape[1:])}: leave tta out"
                )

    def views(self, x: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Each view of images, and whether it is mirrored."""
        for factor in self.scales:
            for view in corners(scaled(x, factor), self.crops):
                yield view, False
                if self.flip:
                    yield view.flip(-1), True

    def predict(self, module: Module, x: Tensor) -> dict[str, Tensor]:
        """The mean over the views."""
        shapes = {task.name: task.shape for task in module.setting.tasks}
        total: dict[str, Tensor] = {}
        count = 0
        for view, mirrored in self.views(x):
            count += 1
            for task, found in probabilities(module.outputs(view), module.setting).items():
                found = found.flip(-1) if mirrored and shapes[task] else found
                total[task] = total[task] + found if task in total else found
        return {task: value / count for task, value in total.items()}
