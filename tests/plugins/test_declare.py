import math
import re

import pytest

from plugins import declare
from plugins.declare import Declared
from plugins.errors import RecipeError

BOUNDS = {
    "": {},
    ", ≤ 1": {"most": 1},
    ", ≥ 0": {"least": 0},
    ", > 0": {"above": 0},
    ", in [0, 1]": {"least": 0, "most": 1},
    ", in (0, 1]": {"above": 0, "most": 1},
}


@pytest.mark.parametrize("told", BOUNDS)
def test_an_interval_has_any_bounds(told):
    class Drawn(Declared):
        between: list[float] = declare.interval("from and to", default=[0.5, 1.0], **BOUNDS[told])

    assert Drawn.declared_parameters["between"].comment == f"from and to{told}"
    assert Drawn(between=(1, 1)).between == [1.0, 1.0]
    wrong = [[1.0, 0.5], [-math.inf, 1.0], [0.5, math.inf], [math.nan, 1.0], [1.0], 1.0, "ab"]
    bounds, words = BOUNDS[told], re.escape(told.lstrip(","))
    wrong += [[0.5, 1.5]] if "most" in bounds else []
    wrong += [[-0.5, 1.0]] if {"least", "above"} & {*bounds} else []
    wrong += [[0.0, 1.0]] if "above" in bounds else []
    for value in wrong:
        with pytest.raises(RecipeError, match=f"^between must be two numbers{words}, the first not above the second, got"):
            Drawn(between=value)
    if not bounds:
        assert Drawn(between=[-3, 4]).between == [-3.0, 4.0]
