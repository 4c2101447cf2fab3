"""How long a training has taken, without what is no training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Counts from :meth:`start` on."""

    def __init__(self) -> None:
        self._began: float | None = None

    def start(self) -> None:
        """Count from now on: what comes before, such as starting further processes, is no training."""
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has counted."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do what is no training, and would make one technique look slower than another."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._began is not None:
                self._began += time.monotonic() - began
