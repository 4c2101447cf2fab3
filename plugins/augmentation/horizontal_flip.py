"""Random horizontal flips."""

from __future__ import annotations

from plugins.augmentation._flipping import RandomFlip


class HorizontalFlip(RandomFlip):
    """Mirror each image left to right with probability p, and class maps with it.

    x[…, j] ← x[…, width − 1 − j], an exact copy of pixels.

    Raises:
        Refusal: the data are not images.

    Source: lecture A (data augmentation).
    """

    dimension = -1
