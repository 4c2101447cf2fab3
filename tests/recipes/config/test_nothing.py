"""`none` in every group that may have nothing, and values for techniques that only some jobs of a sweep have."""

import json

import pytest

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.changing import change
from recipes.config.composing import check, compose, finish, words_of_job
from recipes.config.nothing import may_be_nothing
from tests.command import SMALL, command
from tests.sparsely import sparsely

CATALOGUE = Catalogue()
GROUPS = [name for name in CATALOGUE.groups if may_be_nothing(CATALOGUE, name)]
OTHERS = [name for name in CATALOGUE.groups if name not in GROUPS and name != "recipe" and "none" not in CATALOGUE.groups[name]]


def config(*words):
    checked = check(CATALOGUE, list(words))
    return finish(CATALOGUE, compose(checked), checked)


def refused(*words, multirun=False):
    with pytest.raises(RecipeError) as error:
        check(CATALOGUE, list(words), multirun)
    return str(error.value)


@pytest.mark.parametrize("group", sparsely(GROUPS))
def test_nothing_of_a_group(group):
    plain = config("logger=[]") if group == "logger" else config()
    for plus in {"", "+"} - ({"+"} if group in CATALOGUE.defaults else set()):
        assert config(f"{plus}{group}=none") == plain
    option = next(iter(CATALOGUE.groups[group]))
    word = CATALOGUE.spelling(group, f"none,{option}")
    assert check(CATALOGUE, [word], multirun=True) == [word]
    for other in ("null", "None", "off"):
        assert f"write {CATALOGUE.spelling(group, 'none')}" in refused(f"{group}={other}")


@pytest.mark.parametrize("group", OTHERS)
def test_a_group_of_which_every_run_has_one_has_no_nothing(group):
    assert f"leave it out for {group}={CATALOGUE.defaults[group]}" in refused(f"{group}=none")


@pytest.mark.parametrize(("group", "name"), [("preprocessing", "NoPreprocessing"), ("normalization", "NoNormalization")])
def test_a_file_called_none_is_an_option_like_any_other(group, name):
    assert config(f"{group}=none")[group]["_target_"].endswith(name)


@pytest.mark.parametrize("group", ["clipping", "averaging", "regularizer"])
def test_nothing_in_the_place_of_what_a_recipe_has_chosen(group):
    recipe = "recipe=fashion_mnist_combined"
    with_it, without = config(recipe), config(recipe, f"{group}=none")
    assert with_it.pop(group) and without == with_it
    assert f"write {group}=none, without the plus" in refused(recipe, f"+{group}=none")


def test_nothing_beside_something():
    assert "leave it out" in refused("+averaging=none", "+averaging=ema")
    assert "no option none" in refused("+regularizer=[none,l2]")
    assert "no averaging is chosen; leave it out" in refused("+averaging=none", "averaging.decay=1")


def test_a_run_is_evaluated_without_what_it_was_trained_with():
    trained = config("+inference=mc_dropout")
    assert change(CATALOGUE, trained, ["inference=none"], ("inference",), "evaluation") == config()


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (
            "+regularizer=[],[l2] regularizer.l2.weight=0.01",
            ("+regularizer=[]", "+regularizer=[l2] regularizer.l2.weight=0.01"),
        ),
        ("+averaging=none,ema averaging.decay=0.1", ("+averaging=none", "+averaging=ema averaging.decay=0.1")),
        ("optimizer=sgd,adam optimizer.betas=[0.8,0.9]", ("optimizer=sgd", "optimizer=adam optimizer.betas=[0.8,0.9]")),
        ("+adversarial=none,fgsm,pgd adversarial.steps=3", ("+adversarial=fgsm", "+adversarial=pgd adversarial.steps=3")),
        ("recipe=digits_baseline,fashion_mnist_combined averaging.decay=0.9", ("recipe=digits_baseline",)),
    ],
)
def test_a_value_for_what_only_some_jobs_have(words, jobs):
    (swept, value), handed = words.split(), check(CATALOGUE, words.split(), multirun=True)
    assert handed == [swept, f"++{value}"]
    for job in jobs:
        given = [job.split()[0], f"++{value}"]
        compose(given)  # as Hydra does before it asks for the job
        assert words_of_job(CATALOGUE, given) == job.split()
        config(*job.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("+regularizer=[],[l2] regularizer.dropout.p=0.1", "regularizer.dropout is not chosen"),
        ("+averaging=none,ema averaging.deca=0.1", "did you mean averaging.decay?"),
        ("+averaging=none,ema averaging.decay=a", "averaging.decay must be a number, got 'a'"),
        ("optimizer=sgd,adam optimizer.momentum=0.9", "optimizer has no parameter momentum of"),
        ("seed=0,1 averaging.decay=0.1", "no averaging is chosen; add +averaging=ema"),
    ],
)
def test_a_value_that_no_job_could_take(words, says):
    assert says in refused(*words.split(), multirun=True)


def test_a_pattern_does_not_name_nothing():
    assert check(CATALOGUE, ["+adversarial=glob(*)"], multirun=True) == ["+adversarial=fgsm,fgsm_rs,free,n_fgsm,pgd,trades"]


@pytest.mark.slow
def test_a_sweep_against_nothing(tmp_path):
    words = ("+averaging=none,ema", "averaging.decay=0.1,0.2", "sweep=s", *SMALL)
    done = command("train.py", "-m", *words, cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "nothing added (baseline)" in done.stdout
    jobs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("s/*/result.json"))]
    assert [job["config"].get("averaging", {}).get("decay") for job in jobs] == [
        None,
        0.1,
        0.2,
    ]  # nothing is trained once
    again = command("train.py", "-m", "sweep=s", cwd=tmp_path, forked=True)
    assert again.returncode == 0 and again.stdout.count("is finished") == 3
