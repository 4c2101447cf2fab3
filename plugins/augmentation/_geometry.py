"""What the augmentations share that move pixels: class maps move with their images, by the same draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from plugins.augmentation._images import FilledIn, ImageAugmentation
from plugins.base import Batch, Module, Plugin, Refusal, Selection, Setting, declare, per_label

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, Num

Move = Callable[[Tensor, float], Tensor]


def expect_maps_of_images(option: Plugin, setting: Setting) -> None:
    """Refuse targets with a label for each of other places than the pixels of an image."""
    for task in setting.tasks:
        if task.shape and task.shape != tuple(setting.shape[1:]):
            raise Refusal(
                f"{option.state_key} moves labels as it moves pixels, and target {task.name or 'y'} has places {task.shape} for images of "
                f"{tuple(setting.shape[1:])}: give a label for each pixel, or leave {option.option} out"
            )


class Geometric(ImageAugmentation):
    """An augmentation that moves pixels, and the labels of class maps with them; a subclass draws in `draw` how."""

    on_class_maps = True

    def draw(self, x: Tensor, generator: torch.Generator) -> Move:
        """What is done to images x, as a function of any (samples, channels, H, W) and the value where there was no pixel.

        It may put floats between pixels, and copies each whole number from one place.
        """
        raise NotImplementedError

    def draw_of_batch(self, batch: Batch, module: Module) -> Move:
        """What is done to the images of a batch, where that depends on more than the images."""
        return self.draw(batch.x, module.generator(self.option))

    def check(self, selection: Selection) -> None:
        """Refuse class maps of another size than the images."""
        super().check(selection)
        expect_maps_of_images(self, selection.setting)

    @property
    def blank(self) -> float:
        """The value of images where there was no pixel."""
        return 0.0

    def transform(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Move the pixels."""
        return self.draw(x, generator)(x, self.blank)

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Move the pixels of images, and what belongs to them in class maps, by the same draw."""
        move = self.draw_of_batch(batch, module)
        x = move(batch.x, self.blank)
        if not module.setting.has_maps:
            return replace(batch, x=x)
        origin = origins(move, batch.x)
        targets, labels, weight = dict(batch.targets), dict(batch.labels), dict(batch.weight)
        for name in (task.name for task in module.setting.tasks if task.shape):
            same = targets[name] is labels[name]
            labels[name] = moved(labels[name], origin, module.setting.ignored.get(name, 0))
            if self.leaves_out:  # the targets of what is left out may be any
                everywhere = torch.ones_like(batch.labels[name], dtype=torch.float)
                weight[name] = moved(per_label(weight.get(name, everywhere), batch.labels[name]), origin, 0)
            elif name in weight and weight[name].ndim > 1:
                weight[name] = moved(weight[name], origin, 0)
            targets[name] = labels[name] if same and not self.leaves_out else moved(targets[name], origin, 0)
        return replace(batch, x=x, targets=targets, labels=labels, weight=weight)


def origins(move: Move, x: Tensor) -> Tensor:
    """Where each place of moved images is from, (samples, height, width), the pixels of x counted row by row; −1: from nowhere."""
    samples, _, height, width = x.shape
    places = torch.arange(height * width, device=x.device).view(1, 1, height, width)
    return move(places.expand(samples, -1, -1, -1), -1).squeeze(1)


def moved(
    of_places: Num[Tensor, "samples *classes H W"], origin: Int[Tensor, "samples height width"], fill: int
) -> Num[Tensor, "samples *classes height width"]:
    """Labels, weights, or probabilities of classes, copied from where each place is from; `fill` where that is nowhere."""
    index = origin.flatten(1)
    if of_places.ndim == 4:
        index = index.unsqueeze(1).expand(-1, of_places.shape[1], -1)
    values = of_places.flatten(-2).gather(-1, index.clamp(min=0)).masked_fill(index < 0, fill)
    return values.view(*of_places.shape[:-2], *origin.shape[1:])


class Padded(FilledIn, Geometric):
    """One that moves pixels so that there are none in some places: filled in images, in class maps the label that the loss ignores."""

    fill: float | None = declare.number("the value where no pixel is", default=None, null="0, black in images from 0 to 1")

    @property
    def instead(self) -> str:
        """What else to type, where class maps have no label that is ignored."""
        return f"leave {self.option} out"

    def check(self, selection: Selection) -> None:
        """Refuse class maps to pad where no label is ignored."""
        super().check(selection)
        for task in selection.setting.tasks:
            if task.shape and self.fills() and task.name not in selection.setting.ignored:
                raise Refusal(
                    f"{self.state_key} pads class maps with the label that the loss ignores, and this one ignores none: type "
                    f"loss=cross_entropy loss.ignore_index=255, or {self.instead}"
                )

    @property
    def leaves_out(self) -> bool:
        """Whether class maps are padded."""
        return self.fills() and self.setting.has_maps


def flip(
    x: Num[Tensor, " samples *shape"], mirrored: Bool[Tensor, " samples"], dim: int = -1
) -> Num[Tensor, " samples *shape"]:
    """Reverse dimension `dim` of the samples where `mirrored` (samples,) holds; an exact copy of pixels."""
    forward = torch.arange(x.shape[dim], device=x.device)
    source = torch.where(mirrored.unsqueeze(1), forward.flip(0), forward)
    if dim == -1:
        return x.gather(-1, source.view(len(x), *[1] * (x.ndim - 2), -1).expand_as(x))
    rows = x.flatten(0, dim)  # what lies behind the dimension is copied as a whole
    first = torch.arange(0, len(rows), len(forward), device=x.device).view(len(x), -1, 1)
    return rows.index_select(0, (first + source.unsqueeze(1)).flatten()).view(x.shape)


def crop(
    x: Num[Tensor, "samples channels H W"],
    top: Int[Tensor, " samples"],
    left: Int[Tensor, " samples"],
    padding: int,
    height: int,
    width: int,
    fill: float = 0.0,
) -> Num[Tensor, "samples channels {height} {width}"]:
    """Cut a window out of each image padded with `fill`: an exact copy of pixels.

    x (samples, channels, H, W), top and left (samples,): the window's corner in the padded image.
    Result (samples, channels, height, width).
    """
    padded = F.pad(x, (padding,) * 4, value=fill)
    samples, channels, rows, columns = padded.shape
    # A row of a window is contiguous in memory, so whole rows are copied and not single pixels.
    corner = torch.arange(samples, device=x.device) * (channels * rows * columns) + top * columns + left
    channel, row = torch.arange(channels, device=x.device), torch.arange(height, device=x.device)
    offset = (channel.unsqueeze(1) * rows + row) * columns
    starts = (corner.unsqueeze(1) + offset.flatten()).flatten()
    return padded.flatten().unfold(0, width, 1).index_select(0, starts).view(samples, channels, height, width)
