"""What holds for every option, in selections of about eight in which each stands once: the checks are those of `recipes check`.

Each is asked by itself, and in all orders, by the long tests of test_every_option; in which order a selection is written, by test_every_pair.
"""

from functools import cache

import pytest

from recipes.check import alone
from recipes.check.choice import plugin_class
from recipes.check.covering import gather
from recipes.check.selections import at_a_rate_that_trains, everything
from tests.sparsely import sparsely
from tests.sweeps.selected import told

SHARES = 6


@cache
def runs():
    selections = everything()
    return gather(selections.options, selections.names)


def test_each_option_stands_in_a_selection():
    assert {name for names in runs() for name in names} >= set(everything().names)
    assert len(runs()) < len(everything().names) / 4


@pytest.fixture(params=sparsely(range(SHARES), 3))
def ask(request, tmp_path):
    """Makes a check of a share of the selections, each in a folder of its own; what is wrong is told with their names."""

    def each(check):
        for number, names in enumerate(runs()[request.param :: SHARES]):
            told(names, check, names, tmp_path / str(number))

    return each


def test_a_run_that_is_stopped_and_goes_on_ends_bit_for_bit_where_it_would_have(ask):
    ask(lambda names, folder: at_a_rate_that_trains(names, lambda config: alone.resumes(config, folder)))


def test_weights_stay_in_single_precision_where_passes_are_in_bf16(ask):
    ask(lambda names, folder: at_a_rate_that_trains(names, lambda config: alone.trains_in_bf16(config, folder)))


def test_strength_zero_changes_no_bit(ask):
    def check(names, folder):
        off = {name for name in names if (found := plugin_class(name)) is not None and found.off is not None}
        kept = [
            name for name in names if name in off or all(off.isdisjoint(needed) for needed in everything().needs.get(name, ()))
        ]
        alone.turned_off(kept, sorted(off), folder)

    ask(check)
