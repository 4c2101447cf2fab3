"""The covering array: every allowed pair stands in a selection, nothing forbidden does, and there are few of them."""

import itertools
from math import ceil, comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.check.covering import Options, cover, gather

# about as many options as there will be, in groups of such sizes
ONE = {
    **{"optimizer": 18, "init": 12, "scheduler": 11, "loss": 8, "multitask": 8, "normalization": 7, "preprocessing": 5},
    **{"adversarial": 5, "inference": 4, "stopping": 4, "clipping": 3, "finetuning": 3, "distillation": 3, "sampling": 3},
    "averaging": 2,
}
MANY = {"augmentation": 19, "regularizer": 14, "metric": 7, "diagnostics": 6, "wrapper": 5, "curriculum": 2, "guard": 1}


def names_of(groups):
    return [f"{group}/{number}" for group, count in groups.items() for number in range(count)]


def exclusive(groups):
    """All pairs within each of the groups."""
    return [pair for group, count in groups.items() for pair in itertools.combinations(names_of({group: count}), 2)]


def consistent(selection, forbidden, needs):
    """What is written out here anew: nothing forbidden is in it, all that is needed is."""
    return not any(set(names) <= selection for names in forbidden) and all(
        selection & set(alternatives) for name in selection for alternatives in needs.get(name, ())
    )


def possible(pair, names, forbidden, needs):
    """Whether any selection at all has the pair, by trying all of them."""
    rest = [name for name in names if name not in pair]
    return any(
        consistent({*pair, *further}, forbidden, needs)
        for count in range(len(rest) + 1)
        for further in itertools.combinations(rest, count)
    )


@st.composite
def option_sets(draw):
    names = [f"o{number}" for number in range(draw(st.integers(2, 8)))]
    some = st.lists(st.sampled_from(names), min_size=2, max_size=3, unique=True)
    forbidden = draw(st.lists(some, max_size=10))
    # an option needs one that comes later in the list, so that there are chains and no circles
    needs = {}
    for number in draw(st.lists(st.integers(0, len(names) - 2), max_size=3, unique=True)):
        needs[names[number]] = [draw(st.lists(st.sampled_from(names[number + 1 :]), min_size=1, max_size=2, unique=True))]
    return names, forbidden, needs


@settings(max_examples=200, deadline=None)
@given(option_sets(), st.integers(2, 8))
def test_every_allowed_pair_is_covered_and_nothing_forbidden_is_chosen(options, size):
    names, forbidden, needs = options
    runs = cover(Options(names, forbidden, needs), size)
    assert runs == cover(Options(names, forbidden, needs), size), "the same options give the same selections"
    covered = {pair for run in runs for pair in itertools.combinations(run, 2)}
    for run in runs:
        assert consistent(set(run), forbidden, needs)
    for pair in itertools.combinations(names, 2):
        assert pair in covered or not possible(pair, names, forbidden, needs), pair


@settings(max_examples=200, deadline=None)
@given(option_sets(), st.integers(2, 8))
def test_every_option_stands_in_a_selection_and_nothing_forbidden_is_chosen(options, size):
    names, forbidden, needs = options
    known = Options(names, forbidden, needs)
    possible_alone = [name for name in names if known.all_of([name]) is not None]
    runs = gather(known, possible_alone, size)
    assert {name for run in runs for name in run} >= set(possible_alone)
    for run in runs:
        assert consistent(set(run), forbidden, needs)


def test_options_that_exclude_each_other_take_a_selection_each_and_the_others_none_of_their_own():
    groups = {"optimizer": 6, "loss": 3, "augmentation": 20}
    runs = gather(Options(names_of(groups), exclusive({"optimizer": 6, "loss": 3})), names_of(groups))
    assert len(runs) == 6 and max(map(len, runs)) <= 8


def test_few_selections_for_as_many_options_as_there_will_be():
    names = names_of(ONE | MANY)
    assert len(names) == 150
    forbidden = exclusive(ONE)
    runs = cover(Options(names, forbidden))
    pairs = comb(150, 2) - len(forbidden)
    assert {pair for run in runs for pair in itertools.combinations(run, 2)} >= set(itertools.combinations(names, 2)) - set(
        forbidden
    )
    assert max(map(len, runs)) == 8
    least = ceil(pairs / comb(8, 2))  # each selection has 28 pairs at most
    assert len(runs) < 1.45 * least < 0.06 * pairs


def test_two_groups_of_which_one_option_can_be_chosen_take_their_product_and_not_more():
    groups = {"first": 6, "second": 5}
    runs = cover(Options(names_of(groups), exclusive(groups)))
    assert len(runs) == 30


def test_what_is_needed_is_chosen_and_what_is_beside_has_no_pairs_of_its_own():
    names = ["a", "b", "c", "companion"]
    runs = cover(Options(names, needs={"a": [["companion"]]}), beside=["companion"])
    assert runs == [("a", "b", "c", "companion")]
    assert cover(Options(names[1:]), beside=["companion"]) == [("b", "c")]


def test_another_option_of_the_group_will_do():
    attacks = ["adversarial/fgsm", "adversarial/pgd"]
    options = Options(["wrapper/awp", *attacks], [attacks], {"wrapper/awp": [attacks]})
    assert sorted(cover(options)) == [("wrapper/awp", "adversarial/fgsm"), ("wrapper/awp", "adversarial/pgd")]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_three_that_exclude_each_other_stand_in_pairs(size):
    runs = cover(Options(["a", "b", "c"], [("a", "b", "c")]), size)
    assert sorted(runs) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_what_two_options_need_is_found_where_the_first_choice_of_both_is_wrong():
    needs = {"a": [["x", "y"]], "b": [["u", "v"]]}
    forbidden = [("x", "u"), ("x", "v"), ("y", "u")]
    options = Options(["a", "b", "x", "y", "u", "v"], forbidden, needs)
    assert options.chosen(options.all_of(["a", "b"])) == ("a", "b", "y", "v")
