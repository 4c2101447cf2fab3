"""Softmax regression, or linear regression."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn


class LinearModel(nn.Sequential):
    """One linear layer on the flattened input: x (samples, ...) → W x + b (samples, outputs)."""

    def __init__(self, shape: Sequence[int], outputs: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(math.prod(shape), outputs))
