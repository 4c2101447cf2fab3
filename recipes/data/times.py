"""Rows split by time: what is held out is later than what is trained on, and rows of one time stay together."""

from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError
from recipes.data.columns import Values, number_of
from recipes.data.table import shown

BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)


def times_of(values: Values, lines: np.ndarray, where: str) -> tuple[Tensor, list[str]]:
    """The place of each row among the different times, (rows,), and these times in their order, as they are written.

    Args:
        values: of the column, its different cells as words.
        lines: of the rows, for the error.
        where: the file and the column, for the error.

    Raises:
        RecipeError: a row without a time; cells that are neither all finite numbers nor all ISO dates, all with a zone or all without.
    """
    words, numbers = values.words or [], values.numbers
    for row in np.flatnonzero(np.isnan(numbers))[:1]:
        raise RecipeError(f"{where}, line {lines[row]}: the cell is empty: each row must have a time")
    codes = numbers.astype(np.int64)
    kinds = [kind_of_time(word) for word in words]
    first = kinds[codes[0]]
    for row in np.flatnonzero([kinds[code] is None or kinds[code] != first for code in codes])[:1]:
        word = words[codes[row]]
        if kinds[codes[row]] is None:
            raise RecipeError(
                f"{where}, line {lines[row]}: {shown(word)} is no time: write all as numbers, or as ISO dates such as 2024-02-29 or "
                f"2024-02-29T12:30"
            )
        raise RecipeError(
            f"{where}, line {lines[row]}: {shown(word)} is {kinds[codes[row]]}, and line {lines[0]} holds {first}, "
            f"{shown(words[codes[0]])}: write all in one way"
        )
    moments = np.array([moment(word) for word in words])
    _, first_of, places = np.unique(moments, return_index=True, return_inverse=True)
    written = [words[number] for number in first_of.tolist()]
    return torch.from_numpy(places.reshape(-1)[codes]), written


def kind_of_time(cell: str) -> str | None:
    """What a cell is as a time; None: none."""
    if (number := number_of(cell)) is not None:
        return "a number" if math.isfinite(number) else None
    if (date := _date(cell)) is None:
        return None
    return "a date" if date.tzinfo is None else "a date with a zone"


def moment(cell: str) -> float:
    """A number, or the microseconds since 1970 of an ISO date."""
    if (number := number_of(cell)) is not None:
        return number
    date = _date(cell)
    assert date is not None
    passed = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)) - BEGINNING
    return float((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds)


def _date(cell: str) -> datetime | None:
    try:
        return datetime.fromisoformat(f"{cell[:-1]}+00:00" if cell.endswith("Z") else cell)
    except ValueError:
        return None


def latest(times: Tensor, share: float, name: str) -> Tensor:
    """Places of the latest rows: of the cuts between two times the one that leaves them nearest to their share.

    Args:
        times: of each row.
        share: of the rows, in (0, 1).
        name: of the share, for the error.
    """
    cuts = _cuts(times)
    if not len(cuts):
        raise RecipeError(
            f"data.{name}={share} does not split {len(times)} rows of one time: rows of one time of data.time stay together"
        )
    begin = int(cuts[(cuts - (1 - share) * len(times)).abs().argmin()])
    return times.argsort(stable=True)[begin:].sort().values


def forward(times: Tensor, folds: int, fold: int) -> tuple[Tensor, Tensor]:
    """Places of the earlier rows, which are trained on, and of those of one fold; what is later is left out.

    The rows are cut into folds + 1 pieces, as even as times that stay together allow: fold k tests on piece k + 1, and trains on all before it.

    Args:
        times: of each row.
        folds: how many, ≥ 2.
        fold: which, from 0 to folds − 1.
    """
    cuts, count = _cuts(times), len(times)
    ends = [int(cuts[(cuts - count * piece / (folds + 1)).abs().argmin()]) if len(cuts) else 0 for piece in range(1, folds + 1)]
    if len({*ends}) < folds or not ends[0]:
        raise RecipeError(
            f"data.folds={folds} does not cut rows of {len(cuts) + 1} different times of data.time, which stay together, into {folds + 1} pieces "
            f"of about {count / (folds + 1):.0f} rows: give fewer folds"
        )
    order, ends = times.argsort(stable=True), [*ends, count]
    return order[: ends[fold]].sort().values, order[ends[fold] : ends[fold + 1]].sort().values


def _cuts(times: Tensor) -> Tensor:
    """The numbers of rows after which, in the order of time, another time begins."""
    in_order = times.sort().values
    return (in_order[1:] != in_order[:-1]).nonzero()[:, 0] + 1
