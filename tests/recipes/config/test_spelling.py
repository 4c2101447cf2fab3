"""What counts as close: a suggestion is one that was meant."""

import random
import string

import pytest

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.composing import check
from recipes.config.spelling import distance, nearest, suggest

CATALOGUE = Catalogue()


def by_definition(first, second):
    """The distance of Damerau and Levenshtein, restricted to neighbours: the recursion written out."""
    if not first or not second:
        return len(first) + len(second)
    ways = [
        by_definition(first[:-1], second) + 1,
        by_definition(first, second[:-1]) + 1,
        by_definition(first[:-1], second[:-1]) + (first[-1] != second[-1]),
    ]
    if first[-2:] == second[-2:][::-1] and len(first) > 1:
        ways.append(by_definition(first[:-2], second[:-2]) + 1)
    return min(ways)


def test_the_distance_is_that_of_its_definition():
    draw = random.Random()
    for _ in range(200):
        first, second = ("".join(draw.choices("abc", k=draw.randrange(6))) for _ in range(2))
        assert distance(first, second) == by_definition(first, second), (first, second)


@pytest.mark.parametrize(
    ("typed", "names", "meant"),
    [
        ("adm", ["adam", "sgd"], "adam"),
        ("Adam", ["adam", "adamw"], "adam"),
        ("mpl", ["mlp", "cnn"], "mlp"),
        ("epochs", ["max_epochs", "max_steps"], "max_epochs"),
        ("val/accuracy", ["val/acc", "val/loss"], "val/acc"),
        ("train/loss", ["val/acc", "val/loss"], "val/loss"),
        ("learning_rate", ["lr", "weight_decay"], "lr"),
        ("cross-entropy", ["cross_entropy"], "cross_entropy"),
        ("onecycle", ["one_cycle", "cosine"], "one_cycle"),
        ("max_time", ["max_steps", "max_epochs"], None),
        ("csv", ["cnn", "npz", "mnist"], None),
        ("lr", ["l2"], None),
        ("test/nothing", ["test/acc", "test/loss"], None),
        ("", ["a", "seed"], None),
    ],
)
def test_nearest(typed, names, meant):
    assert nearest(typed, names) == meant
    assert (meant is None) == suggest(typed, names).startswith("there is ")


def test_a_slip_is_close_and_another_word_is_not():
    names = [name for name in [*CATALOGUE.keys, *CATALOGUE.groups, *CATALOGUE.groups["optimizer"]] if len(name) > 3]
    draw = random.Random()
    for name in names:
        at = draw.randrange(len(name) - 1)
        for slip in (
            name[:at] + name[at + 1 :],
            name[:at] + name[at + 1] + name[at] + name[at + 2 :],
            name[:at] + "x" + name[at:],
        ):
            assert nearest(slip, [name]) == name
        other = "".join(draw.choices(string.digits, k=len(name)))
        assert nearest(other, names) is None


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("data=yaml", "data has no option yaml; there is audio_folder"),
        ("data=mixup", "there is audio_folder"),
        ("model=early", "there is cnn"),
        ("logger=norm", "there is csv"),
        ("trainer=adam", "there is ddp"),
        ("optimizer=cosine", "there is adadelta"),
        ("optimizer=sam", "did you mean +wrapper=sam?"),
        ("+regularizer=mixup", "did you mean +augmentation=mixup?"),
        ("max_tim=10min", "did you mean max_time=10min?"),
        ("max_stps=10min", "did you mean max_steps=10min?"),
        ("max_minutes=10", "there is explain"),
        ("max_stp=10", "did you mean max_steps=10?"),
        ("trainer.max_epochs=3", "did you mean max_epochs=3?"),
        ("trainer.seed=3", "did you mean seed=3?"),
        ("modl=cnn", "did you mean model=cnn?"),
        ("optimizer.learning_rate=1", "did you mean optimizer.lr?"),
    ],
)
def test_a_suggestion_is_of_the_kind_that_was_meant(word, says):
    with pytest.raises(RecipeError) as error:
        check(CATALOGUE, [word])
    assert says in str(error.value)


@pytest.mark.parametrize("group", ["data", "model", "trainer", "logger"])
def test_no_option_of_another_group_is_suggested_for_what_a_run_is_made_of(group):
    for other, options in CATALOGUE.groups.items():
        for option in options if other != group else ():
            if option in (*CATALOGUE.groups[group], "none") or other == "recipe":
                continue
            with pytest.raises(RecipeError) as error:
                check(CATALOGUE, [f"{group}={option}"])
            found = str(error.value).partition("did you mean ")[2]
            assert not found or found.startswith(f"{group}="), (group, option)
