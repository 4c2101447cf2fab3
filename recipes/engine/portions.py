"""A batch of an evaluation as a whole, or in portions where the memory is too small for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch

from plugins.base import Batch
from plugins.inputs import each
from recipes.config.errors import out_of_memory

log = logging.getLogger("recipes")

Found = TypeVar("Found")


class Portions:
    """How many samples are looked at together: all of a batch, and half as many each time that the memory has not held them.

    Whatever is drawn for a sample is drawn by its place in the split, so the portions change no more than how sums are rounded.
    """

    def __init__(self) -> None:
        self.most: int | None = None  # samples; None: as many as there are
        self._told: int | None = None

    def of(self, samples: int, look: Callable[[int, int], Found]) -> Iterator[Found]:
        """What is found in each portion of a batch.

        Args:
            samples: in the batch.
            look: at samples start to stop − 1; it may be asked again for a part of them, and counts nothing.

        Raises:
            Exception: the memory does not hold one sample.
        """
        start = 0
        while True:
            stop = min(samples, start + (self.most or samples))
            found = self._tried(look, start, stop)
            if found:
                self._tell()
                yield found[0]
                start = stop
                if start >= samples:
                    return
            elif torch.cuda.is_available():
                torch.cuda.empty_cache()  # what was left of the attempt is in pieces

    def _tried(self, look: Callable[[int, int], Found], start: int, stop: int) -> list[Found]:
        """What is found, or nothing where the memory was too small: then the next portion is half as large."""
        try:
            return [look(start, stop)]
        except Exception as error:
            if stop - start < 2 or out_of_memory(error) is None:
                raise
            self.most = (stop - start + 1) // 2
        return []

    def _tell(self) -> None:
        """Say what fits, once it does."""
        if self.most != self._told:
            log.warning(
                "an evaluation looks at %d samples at a time from here on: the memory does not hold more (data.eval_batch_size=%d)",
                *(self.most, self.most),
            )
            self._told = self.most


def portion(batch: Batch, start: int, stop: int) -> Batch:
    """Samples start to stop − 1 of a batch."""
    if start == 0 and stop == len(batch):
        return batch
    rows = slice(start, stop)
    return replace(
        batch,
        x=each(batch.x, lambda x: x[rows]),
        targets={task: target[rows] for task, target in batch.targets.items()},
        labels={task: target[rows] for task, target in batch.labels.items()},
        weight={task: weight[rows] for task, weight in batch.weight.items()},
        positions=None if batch.positions is None else batch.positions[rows],
    )
