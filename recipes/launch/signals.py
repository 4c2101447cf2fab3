"""Signals that ask a sweep for its end, handed on to its jobs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def collect_signals(pass_on: Any) -> Iterator[list[int]]:
    """Collect the signals that ask for an end, and hand each on at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        pass_on(number)

    heard = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    previous = {number: signal.signal(number, note) for number in heard}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
