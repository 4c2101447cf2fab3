"""What the augmentations of images share."""

from __future__ import annotations

import torch
from torch import Tensor

from plugins.base import Plugin, Refusal, Selection


class ImageAugmentation(Plugin):
    """An augmentation that needs samples of the shape (channels, height, width)."""

    def check(self, selection: Selection) -> None:
        """Refuse data that are not images."""
        super().check(selection)
        if not selection.setting.is_image:
            raise Refusal(
                f"{self.state_key} needs images (channels, height, width), but a sample has the shape "
                f"{selection.setting.shape}: choose data of images or leave {self.option} out"
            )


def flip(x: Tensor, mirrored: Tensor, dim: int = -1) -> Tensor:
    """Reverse dimension `dim` of the samples where `mirrored` (samples,) holds; an exact copy of pixels."""
    forward = torch.arange(x.shape[dim], device=x.device)
    source = torch.where(mirrored.unsqueeze(1), forward.flip(0), forward)
    shape = [len(x)] + [1] * (x.ndim - 1)
    shape[dim] = x.shape[dim]
    return x.gather(dim, source.view(shape).expand_as(x))


def boxes(x: Tensor, rows: Tensor, columns: Tensor, heights: Tensor | int, widths: Tensor | int) -> tuple[Tensor, Tensor]:
    """Which rows (samples, height) and columns (samples, width) a box centred at (rows, columns) covers, clipped at the border."""
    return _covered(x.shape[-2], rows, heights), _covered(x.shape[-1], columns, widths)


def _covered(length: int, centre: Tensor, extent: Tensor | int) -> Tensor:
    first = centre - extent // 2
    position = torch.arange(length, device=centre.device)
    return (position >= first.unsqueeze(1)) & (position < (first + extent).unsqueeze(1))
