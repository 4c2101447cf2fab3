"""The numbers of inputs as a model takes them."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit_range(x: Tensor) -> Tensor:
    """Bytes of an image as numbers in [0, 1]; other whole numbers as they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x.float()


def as_entry(x: Tensor) -> Tensor:
    """One of several inputs: images of bytes in [0, 1], other whole numbers of 64 bits, as embeddings take them; all else as it is."""
    if x.is_floating_point() or x.dtype == torch.bool:
        return x
    return to_unit_range(x) if is_image_of_bytes(x) else x.long()


def is_image_of_bytes(x: Tensor) -> bool:
    """Whether it is one: (samples, channels, height, width)."""
    return x.dtype == torch.uint8 and x.ndim == 4
