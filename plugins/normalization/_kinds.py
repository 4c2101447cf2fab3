"""Which layers are norm layers, and how they are called."""

from __future__ import annotations

import re

from torch import nn

from plugins.parameters import is_vector
from plugins.sites import NORMS, WEIGHTED, Call

CALLED_NORM = re.compile(r"norm(\dd)?$", re.IGNORECASE)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer: one of torch's, or one that is called so and has nothing but vectors of its own."""
    own = list(module.parameters(recurse=False))
    called = bool(own) and CALLED_NORM.search(type(module).__name__) is not None
    return isinstance(module, NORMS) or (called and not isinstance(module, WEIGHTED) and all(map(is_vector, own)))


def features_last(call: Call) -> bool:
    """Whether a norm layer takes its features in the last dimension."""
    norm, x = call.module, call.input
    sizes = tuple(getattr(norm, "normalized_shape", ()))
    if not sizes and not isinstance(norm, NORMS):
        sizes = (next(norm.parameters(recurse=False)).numel(),)
    # Subclasses such as LayerNorm2d, and norms of one's own, may swap dimensions around the norm: their features are in dimension 1.
    second = x.ndim > 2 and (x.shape[1],) == sizes and (x.ndim == 4 or x.shape[-1] != sizes[0])
    swaps = type(norm) not in (nn.LayerNorm, nn.RMSNorm) and second
    return len(sizes) == 1 and not swaps
