"""Which values an adversarial example may take: the range is given, or taken from the data, or the run is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from plugins.adversarial._ascent import Bounds
from plugins.base import UNIT, RecipeError, Refusal, Setting, declare

NO_LIMIT = (-math.inf, math.inf)
SLACK = 1e-3  # by which inputs may leave the range, as a share of it: people round


def is_range(given: Any) -> bool:
    """Whether a value is [lo, hi] with lo < hi, each a number, a list of them, one a channel, or None for no limit."""
    fits = isinstance(given, (list, tuple)) and len(given) == 2
    if fits:
        low, high = (
            list(end) if isinstance(end, (list, tuple)) else [limit if end is None else end]
            for end, limit in zip(given, NO_LIMIT, strict=True)
        )
        numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in [*low, *high])
        lists = [len(end) for end in given if isinstance(end, (list, tuple))]
        fits = numbers and len({*lists}) <= 1 and 0 not in lists
        times = max(len(low), len(high)) if fits else 0
        fits = fits and all(a < b for a, b in zip(_spread(low, times), _spread(high, times), strict=True))
    return fits


def _spread(end: list[float], times: int) -> list[float]:
    return end * times if len(end) == 1 else end


def decide_range(option: str, given: Sequence[Any] | None, setting: Setting, x: Tensor | None = None) -> Bounds:
    """The range of valid inputs: what is given, [0, 1] for images that lie within it, none for data that are no images.

    Args:
        option: that asks.
        given: the range, or None.
        setting: knows the training inputs, unless a finished run is evaluated.
        x: the first inputs, which tell where nothing else is known.

    Raises:
        Refusal: images whose range is not known; a range for another number of channels.
    """
    if given is not None:
        low, high = (
            _as_end(option, limit if end is None else end, setting) for end, limit in zip(given, NO_LIMIT, strict=True)
        )
        return low, high
    if not setting.is_image:
        return None
    extremes = setting.extremes or (None if x is None or not len(x) else (float(x.min()), float(x.max())))
    if extremes is None or (UNIT[0] <= extremes[0] and extremes[1] <= UNIT[1]):
        return UNIT
    raise Refusal(
        f"{option}: the inputs reach from {extremes[0]:.4g} to {extremes[1]:.4g}, so which values are valid is not known: type "
        f"adversarial.range=[lo,hi] in their units, an end being a number or a list of one a channel, or adversarial.range=[null,null] "
        f"for no limit"
    )


def _as_end(option: str, end: Any, setting: Setting) -> Tensor | float:
    if not isinstance(end, (list, tuple)):
        return float(end)
    if not setting.is_image or len(end) != setting.shape[0]:
        raise Refusal(
            f"{option}: adversarial.range has {len(end)} numbers for an end, one a channel, and a sample has the shape {setting.shape}"
        )
    return torch.tensor(end, dtype=torch.get_default_dtype()).view(-1, 1, 1)


RANGE = declare.value(
    "[lo,hi] of valid inputs, a number or a list of one a channel each, null: no limit",
    "[lo,hi] with lo < hi, each a number, a list with one number a channel, or null for no limit",
    is_range,
    default=None,
    null="[0,1] for images within it",
)


class ValidRange:
    """The range of valid inputs of one attack: decided once, where its inputs are, and held against what it gets.

    Args:
        option: the attack.
        given: the range, or None for what the data tell.
    """

    def __init__(self, option: str, given: Sequence[Any] | None) -> None:
        self.option, self.given = option, given
        self._bounds: Bounds = None
        self._decided = False
        self._looked_at: set[str] = set()

    def decide(self, setting: Setting, x: Tensor | None = None) -> None:
        """Find the range, once."""
        if not self._decided:
            self._bounds, self._decided = decide_range(self.option, self.given, setting, x), True

    def bounds(self, setting: Setting, x: Tensor) -> Bounds:
        """The range, where the inputs x are."""
        self.decide(setting, x)
        if self._bounds is not None:
            low, high = (end.to(x.device) if isinstance(end, Tensor) else end for end in self._bounds)
            self._bounds = low, high  # a copy on the device is kept
            return tuple(end.to(x.dtype) if isinstance(end, Tensor) else end for end in self._bounds)  # type: ignore[return-value]
        return None

    def forget(self, split: str) -> None:
        """Look at a split anew: it may come from another loader."""
        self._looked_at.discard(split)

    def expect_within(self, setting: Setting, x: Tensor, split: str) -> None:
        """Refuse inputs that lie outside, for they belong to another range; the first ones of each split are looked at.

        Raises:
            RecipeError: inputs outside, or whole numbers, which nothing small can be added to.
        """
        if split in self._looked_at or not len(x):
            return
        self._looked_at.add(split)
        if not x.is_floating_point():
            raise RecipeError(
                f"{self.option}: the inputs are whole numbers, such as tokens, to which nothing small can be added: leave it out"
            )
        bounds = self.bounds(setting, x)
        if bounds is None:
            return
        low, high = (torch.as_tensor(end, dtype=x.dtype, device=x.device) for end in bounds)
        slack = SLACK * (high - low)
        slack = slack.where(slack.isfinite(), 0.0)
        if bool(((x < low - slack) | (x > high + slack)).any()):
            ends = ",".join(f"{end:.4g}" if end.ndim == 0 else "[…]" for end in (low, high))
            raise RecipeError(
                f"{self.option}: the inputs of {split} that it gets reach from {float(x.min()):.4g} to {float(x.max()):.4g}, outside of "
                f"the range [{ends}]: type adversarial.range=[lo,hi] in the units of what it gets, or prepare the inputs in the model"
            )

    def plain(self) -> list[Any] | None:
        """The range as plain values, None where there is no limit."""
        if self._bounds is None:
            return None
        ends = [end.flatten().tolist() if isinstance(end, Tensor) else end for end in self._bounds]
        return [None if end in NO_LIMIT else end for end in ends]
