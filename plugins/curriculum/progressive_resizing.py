"""Progressive resizing of images (Howard, 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import eq
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from plugins.augmentation._geometry import expect_maps_of_images
from plugins.base import Batch, Module, RecipeError, Refusal, Selection, Setting, Stage, declare
from plugins.sizes import Resizing

if TYPE_CHECKING:
    from jaxtyping import Float, Num


FINE = 2**20  # pixels of a side that show any growth, where none is known


def size_at(side: int, scale: float, increment: int) -> int:
    """The multiple of `increment` pixels next to scale · side, at least one of them and at most `side`; `side` itself where scale is 1."""
    return side if scale >= 1 else min(side, max(1, round(side * scale / increment)) * increment)


def resized(
    x: Float[Tensor, "samples channels H W"], height: int, width: int
) -> Float[Tensor, "samples channels {height} {width}"]:
    """Smaller images, each pixel a mean of those that it covers (bilinear with antialiasing), within what each image reaches."""
    small = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    return small.clamp(x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True))  # but for rounding it is


def picked(of_places: Num[Tensor, "*rest H W"], height: int, width: int) -> Num[Tensor, "*rest {height} {width}"]:
    """Labels, or weights, of the places that lie nearest to the centres of fewer ones."""
    rows, columns = (
        ((torch.arange(few, device=of_places.device) + 0.5) * many / few).long()
        for few, many in zip((height, width), of_places.shape[-2:], strict=True)
    )
    return of_places[..., rows.unsqueeze(1), columns]


class ProgressiveResizing(Resizing):
    """Train on small images first, and on larger ones as the training goes on: the first steps take a fraction of the time.

    Sides are s · side, rounded to the next multiple of `size_increment`, with s = s₀ until the share d of the training is over, then
    s = s₀ + (1 − s₀) · (t − d) / (1 − f − d) at the share t, and s = 1 in the last share f. Images are made smaller behind all augmentations
    of single images, and before samples are mixed; class maps and their weights with them, at the nearest place. Validation and test see images
    of full size. A function of the steps done: a run that goes on has the sizes that it would have had.

    Raises:
        RecipeError: a training without an end.
        Refusal: the data are not images; a model, or what stands in front of it, that takes images of one size only; a teacher.

    Source: Howard, "Training Imagenet in 3 hours", fast.ai, 2018; MosaicML Composer, "Progressive Resizing".
    """

    stage = Stage.SIZE
    on_named_inputs = False
    on_class_maps = True

    initial_scale: float = declare.number("s₀, the share of each side at first", default=0.5, above=0, most=1, off=1.0)
    delay_fraction: float = declare.share("d, the share of the training before images grow", default=0.5)
    finetune_fraction: float = declare.share(
        "f, the share of the training at the end in which images have their full size", default=0.2
    )
    size_increment: int = declare.count("pixels of which sides are a multiple", default=4)

    def __post_init__(self) -> None:
        self._replays = 1  # steps in a row that train on one batch, which has one size
        self._sides: tuple[int, ...] = (FINE,)  # of all images

    def scale(self, elapsed: float) -> float:
        """The share of each side after a share of the training."""
        growing = 1 - self.finetune_fraction - self.delay_fraction
        if elapsed >= 1 - self.finetune_fraction:
            return 1.0
        share = (elapsed - self.delay_fraction) / growing if growing > 0 else 0.0
        return self.initial_scale + (1 - self.initial_scale) * max(0.0, share)

    def scale_in(self, step: int, total: int) -> float:
        """The share of each side in a step."""
        return self.scale((step - step % self._replays) / total)

    def same_so_far(self, done: int, before: int, now: int) -> bool:
        """Whether in each step images have the same size."""

        def sizes(total: int) -> Iterator[list[int]]:
            scales = (self.scale_in(step, total) for step in range(done))
            return ([size_at(side, scale, self.size_increment) for side in self._sides] for scale in scales)

        return super().same_so_far(done, before, now) and all(map(eq, sizes(before), sizes(now)))

    def check(self, selection: Selection) -> None:
        """Refuse data that are not images, and maps of other places."""
        if not selection.setting.is_image:
            raise Refusal(
                f"{self.state_key} needs images (channels, height, width), but a sample has the shape {selection.setting.shape}: choose "
                f"data of images or leave {self.option} out"
            )
        super().check(selection)
        if self._taught:
            reason = "its teacher would be asked for smaller images than it was trained on; leave one of the two out"
            raise Refusal(f"{self.state_key} cannot be combined with {self._taught[0].state_key}: {reason}")
        expect_maps_of_images(self, selection.setting)
        self._replays = max(plugin.repeats for plugin in selection.plugins)
        self._sides = tuple(selection.setting.shape[1:])

    def sizes(self, setting: Setting) -> list[tuple[int, ...]]:
        """Heights and widths that images may have on the way to their full size, the smallest first."""
        sides = tuple(setting.shape[1:])
        scales = [self.initial_scale + (1 - self.initial_scale) * part / max(sides) for part in range(max(sides))]
        return sorted({tuple(size_at(side, scale, self.size_increment) for side in sides) for scale in scales} - {sides})

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuse a training of which no share is known."""
        if pl_module.progress[1] is None:
            raise RecipeError(f"{self.state_key} counts shares of the training, and it has no end: set max_epochs or max_steps")

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Make images smaller, and class maps with them."""
        done, total = module.progress
        scale = self.scale_in(done, total) if total else self.scale(0.0)
        height, width = (size_at(side, scale, self.size_increment) for side in batch.x.shape[-2:])
        self.record(module, "height", float(height))
        self.record(module, "width", float(width))
        if (height, width) == batch.x.shape[-2:]:
            return batch
        targets, labels, weight = dict(batch.targets), dict(batch.labels), dict(batch.weight)
        for name in (task.name for task in module.setting.tasks if task.shape):
            same = targets[name] is labels[name]
            labels[name] = picked(labels[name], height, width)
            targets[name] = labels[name] if same else picked(targets[name], height, width)
            if name in weight and weight[name].ndim > 1:
                weight[name] = picked(weight[name], height, width)
        return replace(batch, x=resized(batch.x, height, width), targets=targets, labels=labels, weight=weight)
