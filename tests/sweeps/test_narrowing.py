"""A selection that fails is narrowed to the few that make it fail."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from recipes.check.narrowing import narrow
from recipes.check.selections import Selections, fault_of


@given(st.integers(1, 12), st.data())
def test_exactly_those_are_found_that_fail_together(count, data):
    names = [str(number) for number in range(count)]
    guilty = data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=3))
    asked = []

    def fails(selection):
        asked.append(selection)
        return guilty <= set(selection)

    assert set(narrow(names, fails)) == guilty
    assert len(asked) == len(set(asked)) <= 60


@given(st.integers(2, 10), st.data())
def test_of_several_reasons_one_is_found_of_which_nothing_can_be_left_out(count, data):
    names = [str(number) for number in range(count)]
    reasons = data.draw(st.lists(st.sets(st.sampled_from(names), min_size=1, max_size=3), min_size=1, max_size=4))

    def fails(selection):
        return any(reason <= set(selection) for reason in reasons)

    found = narrow(names, fails)
    assert fails(found)
    assert not any(fails(fewer) for fewer in itertools.combinations(found, len(found) - 1))


PLUGINS = '''
import torch
from plugins.base import Plugin, Refusal, Stage


class Marking(Plugin):
    """Does no harm by itself."""

    stage = Stage.PROJECTION

    def after_step(self, module, optimizer):
        """A mark that only the other one looks at."""
        module.marked = True


class Shy(Plugin):
    """Breaks the weights where the other one was."""

    stage = Stage.AVERAGING

    def after_step(self, module, optimizer):
        """Break them."""
        if getattr(module, "marked", False):
            for parameter in module.model.parameters():
                parameter.data.fill_(float("nan"))


class Picky(Plugin):
    """Refuses the one, and together with that the other."""

    stage = Stage.DIAGNOSTICS

    def check(self, selection):
        """Refuse two things."""
        if selection.has("diagnostics/gradient_stats"):
            raise Refusal("regularizer/picky cannot be combined with diagnostics/gradient_stats: it looks at the same")
        if selection.has("regularizer/dropout") and selection.has("clipping"):
            raise Refusal("regularizer/picky cannot be combined with dropout and clipping at once: leave one of them out")
'''


SOME = (
    "augmentation/mixup",
    "clipping/norm",
    "diagnostics/gradient_stats",
    "optimizer/adam",
    "regularizer/dropout",
    "wrapper/sam",
)


def found(selections, folder):
    """What the sweep would tell."""
    return [
        selections.told(names, fault, folder) for names in selections.runs if (fault := fault_of(names, folder)) is not None
    ]


def test_a_pair_that_breaks_is_named(install, tmp_path):
    install(PLUGINS, "Marking", "Shy", "Picky")
    lines = found(Selections([*SOME, "regularizer/marking", "regularizer/shy"]), tmp_path)
    assert lines
    for line in lines:
        assert line.startswith("regularizer/marking × regularizer/shy failed: ")
        assert "+regularizer=[marking,shy]" in line and "found in: " in line


def test_a_pair_that_is_refused_by_accident_is_named(install, tmp_path):
    install(PLUGINS, "Marking", "Shy", "Picky")
    names = [*SOME, "regularizer/picky"]
    lines = found(Selections(names), tmp_path)
    assert lines
    assert all("refused, which does not stand in refusals.yaml" in line for line in lines)
    pair = "diagnostics/gradient_stats × regularizer/picky"
    assert any(line.startswith(pair) for line in lines)
    three = "clipping/norm × regularizer/dropout × regularizer/picky"
    assert not found(Selections(names, {pair: "looks at the same", three: "at once"}), tmp_path)
    assert all(line.startswith(three) for line in found(Selections(names, {pair: "looks at the same"}), tmp_path))
