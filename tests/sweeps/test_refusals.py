"""What is refused is what refusals.yaml lists: what it lists is built pair by pair, all other pairs in runs of about eight; none is trained."""

import pytest

from recipes.check import choice, refusals
from recipes.check.selections import Fault, everything, refusal_of


@pytest.mark.slow
def test_no_pair_is_refused_but_those_that_are_listed(tmp_path, record_property):
    selections = everything()
    refused = [(names, Fault(True, message)) for names in selections.runs if (message := refusal_of(names)) is not None]
    record_property("sweep: pairs", len(selections.pairs))  # summed up at the end of the session
    assert not refused, "\n".join(selections.told(names, fault, tmp_path) for names, fault in refused)


def test_what_is_listed_is_refused_for_the_reason_that_stands_there(record_property):
    selections, wrong = everything(), []
    listed = [pair for pair in selections.pairs if frozenset(pair) in selections.pinned]
    for pair in listed:
        wrong += problems(pair, refusal_of(selections.complete(pair)), selections.pinned[frozenset(pair)])
    record_property("sweep: refused", len(listed))
    assert listed and not wrong, "\n".join(wrong)


def test_what_is_for_other_data_is_refused_beside():
    """Either of the two says so, in one line: no data is right for both, and nobody has to list the pair."""
    selections = everything()
    wrong = [pair for pair in selections.apart if not one_line(refusal_of(selections.complete(pair)))]
    assert selections.apart and not wrong


def one_line(message):
    return message is not None and "\n" not in message and len(message) > 30


def test_what_is_listed_for_three_and_more_is_refused_and_for_no_fewer():
    selections, wrong = everything(), []
    for names, reason in selections.pinned.items():
        if len(names) > 2:
            wrong += problems(sorted(names), refusal_of(selections.complete(sorted(names))), reason)
            for name in names:
                fewer = sorted(names - {name})
                if refusal_of(selections.complete(fewer)) is not None:
                    wrong.append(f"{refusals.TIMES.join(fewer)} is refused without {name}")
    assert not wrong, "\n".join(wrong)


def problems(names, message, reason):
    """What is wrong with a refusal that is listed: it must name all, in one line, for the reason that is written."""
    what = refusals.TIMES.join(names)
    if message is None:
        yield f"{what} is listed and not refused: take it out of {refusals.FILE.name}"
        return
    if reason not in message:
        yield f"{what} is refused for another reason than {reason!r}: {message}"
    if "\n" in message or len(message) <= 30:
        yield f"{what} is not refused in one line that tells the reason: {message}"
    missing = [name for name in names if not any(word.lower() in message.lower() for word in words(name))]
    if missing:
        yield f"{what}: the refusal does not name {', '.join(missing)}: {message}"


def words(name):
    """What an option may be called."""
    group, option = name.split("/")
    return group, option, choice.target(name).rpartition(".")[2]


def test_a_group_stands_for_its_options():
    names = ["a/one", "a/two", "b/three"]
    assert refusals.expand({"a × b/three": "why"}, names) == {
        frozenset({"a/one", "b/three"}): "why",
        frozenset({"a/two", "b/three"}): "why",
    }
    assert refusals.expand({"a × a": "why"}, names) == {frozenset({"a/one", "a/two"}): "why"}
    assert list(refusals.expand({"a/one × a/two × b": "why"}, names)) == [frozenset(names)]


@pytest.mark.parametrize("written", ["a/one", "a/one × c", "a/one × b/four", "a/one x b/three"])
def test_what_names_nothing_is_told(written):
    with pytest.raises(ValueError, match="must be groups or options"):
        refusals.expand({written: "why"}, ["a/one", "a/two", "b/three"])


def test_what_stands_twice_is_told():
    with pytest.raises(ValueError, match="twice"):
        refusals.expand({"a × b": "why", "b/three × a/one": "why"}, ["a/one", "a/two", "b/three"])


def test_a_package_may_list_what_ours_say_of_a_whole_group():
    theirs = {"a/one × b/three": "why"}
    names = ["a/one", "b/three"]
    assert refusals.expand({"a × b": "whole", **theirs}, names, theirs) == {frozenset(names): "why"}
