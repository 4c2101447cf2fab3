import math

import numpy as np
import pytest

from plugins.base import RecipeError
from plugins.stopping.milestones import Milestones, missed


def test_the_first_milestone_that_is_missed():
    """Written out: all milestones behind, in the order of their steps, against the best value."""
    for _ in range(200):
        random = np.random.default_rng()
        reach = {int(step): float(value) for step, value in zip(random.integers(1, 20, 4), random.normal(size=4), strict=True)}
        step, best, larger = int(random.integers(0, 25)), float(random.normal()), bool(random.integers(2))
        behind = [(at, reach[at]) for at in range(step + 1) if at in reach]
        failed = [(at, value) for at, value in behind if (best < value if larger else best > value)]
        assert missed(reach, step, best, larger) == (failed[0] if failed else None)
    assert missed({3: 0.5}, 3, math.nan, True) == (3, 0.5)


@pytest.mark.parametrize("reach", [{0: 1.0}, {"a": 1.0}, {5: math.nan}, {5: "x"}, [5, 1.0], {5.5: 1.0}, {True: 1.0}])
def test_what_is_no_milestone_is_refused(reach):
    with pytest.raises(RecipeError, match="reach must be values by step"):
        Milestones(reach=reach)


def test_the_best_of_another_metric_is_refused():
    state = Milestones(reach={3: 0.5}, metric="val/acc").state_dict()
    Milestones(metric="val/acc").load_state_dict(state)
    for other in (Milestones(), Milestones(metric="val/acc", mode="min")):
        with pytest.raises(
            RecipeError, match="best so far is that of stopping.metric=val/acc: leave metric and mode, or start"
        ):
            other.load_state_dict(state)
    other.load_state_dict({"best": 0.5})  # of a run that did not tell
