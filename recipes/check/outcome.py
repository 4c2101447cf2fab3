"""What a check finds."""

from __future__ import annotations

from typing import NoReturn


class Wrong(Exception):
    """An option does not hold what a check asks; in one line."""


class NotAsked(Exception):
    """A check that means nothing for an option; in one line, why."""


def wrong(text: str) -> NoReturn:
    """End a check that does not hold."""
    raise Wrong(text)


def expect(holds: object, text: str) -> None:
    """Go on where it holds."""
    if not holds:
        wrong(text)
