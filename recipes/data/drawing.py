"""What a user's own code draws at random while it makes data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def drawn_alike(seed: int) -> Iterator[None]:
    """Have what torch, NumPy and Python draw in here follow from a seed; what is drawn outside is as it would be without.

    Args:
        seed: any whole number.
    """
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
