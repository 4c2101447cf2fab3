"""Random vertical flips."""

from __future__ import annotations

from plugins.augmentation._flipping import RandomFlip


class VerticalFlip(RandomFlip):
    """Turn each image upside down, as in a mirror, with probability p, and class maps with it.

    x[…, i, :] ← x[…, height − 1 − i, :], an exact copy of pixels.

    Raises:
        Refusal: the data are not images.

    Source: lecture A (data augmentation).
    """

    dimension = -2
