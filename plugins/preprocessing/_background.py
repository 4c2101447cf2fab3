"""What is around what is drawn on images, and what must not change it in training alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._images import Coloured, FilledIn
from plugins.base import LOOKED_AT, Plugin, Refusal, Setting

if TYPE_CHECKING:
    from jaxtyping import Float


def background_of(pieces: Iterable[Tensor]) -> Tensor:
    """The median of the borders' medians of images (samples, channels, height, width), (channels, 1, 1)."""
    found, seen = [], 0
    for x in pieces:
        border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]], 2)
        found.append(border.median(2).values)
        seen += len(x)
        if seen >= LOOKED_AT:
            break
    return torch.cat(found).median(0).values.view(-1, 1, 1)


def expect_kept(plugins: Iterable[Plugin], background: Float[Tensor, "channels 1 1"], setting: Setting, share: float) -> None:
    """Refuse techniques that put a value in place of the background, apart from it by a share of all values, or recolour one that is not black."""
    told = ", ".join(f"{value:.4g}" for value in background.flatten().tolist())
    for plugin in (each for each in plugins if isinstance(each, (FilledIn, Coloured))):
        low, high = setting.extremes or (0.0, 1.0)
        faint = share * (high - low)
        instead = f"preprocessing=standardize, or leave {plugin.option} out"
        if isinstance(plugin, FilledIn) and plugin.fills() and (background - plugin.blank).abs().max() > faint:
            one = background.mean()
            by_fill = (
                f"{plugin.group}.{plugin.option}.fill={one.item():.4g}, " if (background - one).abs().max() <= faint else ""
            )
            raise Refusal(
                f"{plugin.state_key} fills in {plugin.blank:.4g}, which preprocessing/width takes for what is drawn on a background of {told}: "
                f"type {by_fill}{instead}"
            )
        if isinstance(plugin, Coloured) and background.max() >= min(faint, getattr(plugin, "threshold", faint)):
            raise Refusal(
                f"{plugin.state_key} changes a background of {told}, which preprocessing/width then takes for what is drawn, in training "
                f"alone: type {instead}"
            )
