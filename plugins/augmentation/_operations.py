"""The operations of AutoAugment and of what followed it: to each image one of them, as strong as is drawn for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation import _colours as colours
from plugins.augmentation._warping import warp

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Change = Callable[[Tensor, Tensor], Tensor]  # of images, given which of the batch they are

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDING = ("brightness", "saturation", "contrast", "sharpness")
OPERATIONS = ("identity", *GEOMETRIC, *BLENDING, "posterize", "solarize", "autocontrast", "equalize", "invert", "hue")
SIGNED = torch.tensor([name in (*GEOMETRIC, *BLENDING) for name in OPERATIONS])


@dataclass(frozen=True)
class Strengths:
    """How strong operations are, from a level of 0 on in equal steps.

    Args:
        levels: how many there are.
        shear: at the last one, as a tangent.
        side: how far images are moved then, as a share of their side.
        pixels: the same in pixels, in place of `side`.
        degrees: by how much they are turned then.
        blend: by how much the factor of brightness, saturation, contrast or sharpness then differs from 1.
        bits: that posterize leaves, at the first and at the last level.
    """

    levels: int
    shear: float = 0.3
    side: float = 150 / 331
    pixels: float | None = None
    degrees: float = 30.0
    blend: float = 0.9
    bits: tuple[int, int] = (8, 4)

    def amounts(
        self, operations: Tensor, level: Tensor | int, signs: Tensor, height: int, width: int
    ) -> Float[Tensor, " samples"]:
        """What `operate` takes for operations (samples,), their levels and signs, all on the CPU."""
        amount = _table(self, height, width)[operations, level]
        return torch.where(SIGNED[operations], amount * signs, amount)


@cache
def _table(strengths: Strengths, height: int, width: int) -> Tensor:
    """Amounts (operations, levels), numbers of 32 bits as torchvision has them."""
    to = partial(torch.linspace, 0.0, steps=strengths.levels, dtype=torch.float32)
    first, last = strengths.bits
    across, down = (side * strengths.side if strengths.pixels is None else strengths.pixels for side in (width, height))
    known = {
        **{"shear_x": to(end=strengths.shear), "shear_y": to(end=strengths.shear), "rotate": to(end=strengths.degrees)},
        **{"translate_x": to(end=across), "translate_y": to(end=down)},
        **{name: to(end=strengths.blend) for name in BLENDING},
        "posterize": (
            first - torch.arange(strengths.levels, dtype=torch.float32) / ((strengths.levels - 1) / (first - last))
        ).round(),
        "solarize": torch.linspace(1.0, 0.0, strengths.levels, dtype=torch.float32),
    }
    return torch.stack([known.get(name, torch.zeros(strengths.levels, dtype=torch.float32)) for name in OPERATIONS])


def matrices(
    operations: Int[Tensor, " samples"], amounts: Float[Tensor, " samples"], height: int, width: int
) -> Float[Tensor, "samples 2 3"]:
    """For each image where its pixels come from, by one of the operations `GEOMETRIC`, numbered as in `OPERATIONS`."""
    is_x, is_y, moves_x, moves_y, turns = (operations == OPERATIONS.index(name) for name in GEOMETRIC)
    matrix = torch.eye(2, 3, device=amounts.device, dtype=amounts.dtype).repeat(len(amounts), 1, 1)
    # a shear leaves the first row, or column, where it is; moves are of whole pixels
    matrix[:, 0, 1], matrix[:, 0, 2] = is_x * amounts, is_x * amounts * height / 2 - moves_x * amounts.trunc()
    matrix[:, 1, 0], matrix[:, 1, 2] = is_y * amounts, is_y * amounts * width / 2 - moves_y * amounts.trunc()
    angle = torch.deg2rad(amounts)
    turned = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    matrix[:, :, :2] = torch.where(turns.view(-1, 1, 1), turned, matrix[:, :, :2])
    return matrix


def by_kind(
    x: Float[Tensor, "samples channels height width"], kinds: Int[Tensor, " samples"], changes: Sequence[Change | None]
) -> Float[Tensor, "samples channels height width"]:
    """Each image changed by one of some functions, by number; None leaves it as it is.

    `kinds` lie on the CPU, so that images of one kind are put together without waiting for a GPU.
    """
    out = torch.empty_like(x) if None not in changes else x.clone()
    counts = torch.bincount(kinds, minlength=len(changes)).tolist()
    order = kinds.argsort(stable=True).to(x.device, non_blocking=True)
    for change, which in zip(changes, order.split(counts), strict=True):
        if change is not None and len(which):
            out.index_copy_(0, which, change(x.index_select(0, which), which))
    return out


def operate(
    x: Float[Tensor, "samples channels height width"],
    operations: Int[Tensor, " samples"],
    amounts: Float[Tensor, " samples"],
    mode: str = "nearest",
) -> Float[Tensor, "samples channels height width"]:
    """Do to each image one of `OPERATIONS`, by number, and by an amount of its own; both lie on the CPU.

    Amounts are the tangent of a shear, pixels, degrees, a factor − 1, bits, a threshold, a share of the circle of hues; `mode` is that of
    `warp`.
    """
    kind, amount = (each.to(x.device, non_blocking=True) for each in (operations, amounts))

    def moved(images: Tensor, which: Tensor) -> Tensor:
        matrix = matrices(kind.index_select(0, which), amount.index_select(0, which), *x.shape[-2:])
        return warp(images, matrix, mode)

    def recoloured(images: Tensor, which: Tensor, name: str) -> Tensor:
        by = amount.index_select(0, which)
        if name in BLENDING:
            return getattr(colours, name)(images, (1 + by).to(x.dtype))
        if name == "posterize":
            return colours.posterize(images, by.long())
        return getattr(colours, name)(images, *([by.to(x.dtype)] if name in ("solarize", "hue") else []))

    first = len(GEOMETRIC)  # all that move pixels are one kind
    changes = [None, moved, *(partial(recoloured, name=name) for name in OPERATIONS[1 + first :])]
    return by_kind(x, torch.where(operations > first, operations - first + 1, operations.clamp(max=1)), changes)
