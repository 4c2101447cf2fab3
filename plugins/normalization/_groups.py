"""Into how many groups features go where nobody says it."""

from __future__ import annotations

import math

MOST = 32  # groups, as in the paper
ENOUGH = 16  # numbers of a group


def fitting_groups(features: int, places: tuple[int, ...]) -> int:
    """The most groups of equal size, up to 32, that leave 16 numbers or more to each; 1 where there are fewer."""
    fitting = (
        count
        for count in range(min(MOST, features), 0, -1)
        if features % count == 0 and features // count * math.prod(places) >= ENOUGH
    )
    return next(fitting, 1)
