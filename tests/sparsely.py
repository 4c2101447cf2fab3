"""Of many inputs of a kind some are tried each time, and the others in the long tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def sparsely(values: Iterable[Any], of: int = 6) -> list[Any]:
    """The values for `parametrize`, of which all but every `of`-th are slow."""
    return [pytest.param(value, marks=pytest.mark.slow) if number % of else value for number, value in enumerate(values)]
