"""What the augmentations share that move pixels: class maps move with their images, by the same draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import ImageAugmentation
from plugins.base import Batch, Module, Plugin, Refusal, Selection, Setting, per_label

if TYPE_CHECKING:
    from jaxtyping import Bool, Num


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

    def draw(self, x: Tensor, generator: torch.Generator) -> Callable[[Tensor, float], Tensor]:
        """What is done to images x, as a function of any (samples, channels, H, W) and the value where there was no pixel."""
        raise NotImplementedError

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
        move = self.draw(batch.x, module.generator(self.option))
        if not module.setting.has_maps:
            return replace(batch, x=move(batch.x, self.blank))
        targets, labels, weight = dict(batch.targets), dict(batch.labels), dict(batch.weight)
        for name in (task.name for task in module.setting.tasks if task.shape):
            ignored = module.setting.ignored.get(name)
            same = targets[name] is labels[name]
            labels[name] = _moved(move, labels[name], 0 if ignored is None else ignored)
            if self.leaves_out:  # the targets of what is left out may be any
                known = weight.get(name)
                known = (
                    per_label(known, batch.labels[name])
                    if known is not None
                    else torch.ones_like(batch.labels[name], dtype=torch.float)
                )
                weight[name] = _moved(move, known, 0)
            elif name in weight and weight[name].ndim > 1:
                weight[name] = _moved(move, weight[name], 0)
            targets[name] = labels[name] if same and not self.leaves_out else _moved(move, targets[name], 0)
        return replace(batch, x=move(batch.x, self.blank), targets=targets, labels=labels, weight=weight)


def _moved(move: Callable[[Tensor, float], Tensor], of_places: Tensor, fill: float) -> Tensor:
    """Labels, weights or probabilities moved as images are, exactly, whatever their type."""
    maps = of_places if of_places.ndim == 4 else of_places.unsqueeze(1)
    moved = move(maps if maps.is_floating_point() else maps.long(), fill)
    return moved if of_places.ndim == 4 else moved.squeeze(1)


def flip(
    x: Num[Tensor, " samples *shape"], mirrored: Bool[Tensor, " samples"], dim: int = -1
) -> Num[Tensor, " samples *shape"]:
    """Reverse dimension `dim` of the samples where `mirrored` (samples,) holds; an exact copy of pixels."""
    forward = torch.arange(x.shape[dim], device=x.device)
    source = torch.where(mirrored.unsqueeze(1), forward.flip(0), forward)
    shape = [len(x)] + [1] * (x.ndim - 1)
    shape[dim] = x.shape[dim]
    return x.gather(dim, source.view(shape).expand_as(x))
