"""What augmentations of tables learn of the training rows: which features are truth values, and which are the categories of one column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Pieces = Callable[[], Iterator[Tensor]]  # of the training rows, one after the other


def truth_values(pieces: Pieces) -> tuple[Bool[Tensor, " features"], Int[Tensor, " features"], int]:
    """Which features are 0 or 1 in all rows, in how many rows each is 1, and how many rows there are."""
    flags, ones, count = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.long), 0
    for piece in pieces():
        x = piece.flatten(1)
        flags = flags.to(x.device) & ((x == 0) | (x == 1)).all(0)
        ones, count = ones.to(x.device) + (x == 1).sum(0), count + len(x)
    return flags, ones, count


def columns(pieces: Pieces) -> Int[Tensor, " features"]:
    """The number of the column that each feature is of.

    Neighbours that are 0 or 1 in all rows, and of which exactly one is 1 in each, are the categories of one column; every other feature is a
    column. Of several ways the first ones, and of these the shortest, are taken.
    """
    flags, ones, rows = truth_values(pieces)
    below, breaks = (F.pad(found.cumsum(0), (1, 0)) for found in (ones * flags, (~flags).long()))
    stops = torch.searchsorted(below, below[:-1] + rows).clamp(max=len(ones))  # from each feature on as many ones as rows
    starts = ((below[stops] - below[:-1] == rows) & (breaks[stops] == breaks[:-1])).nonzero().squeeze(1)
    alone = torch.ones(len(starts), dtype=torch.bool, device=starts.device)
    for piece in pieces() if len(starts) else ():
        before = F.pad(piece.flatten(1).where(flags, 0).cumsum(1, dtype=torch.float32), (1, 0))
        alone &= (before[:, stops[starts]] - before[:, starts] == 1).all(0)
    runs = dict(zip(starts[alone].tolist(), stops[starts[alone]].tolist(), strict=True))
    found: list[int] = []
    number = 0
    while len(found) < len(ones):
        found += [number] * (runs.get(len(found), len(found) + 1) - len(found))
        number += 1
    return torch.tensor(found)
