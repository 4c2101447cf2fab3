"""What holds for every declared parameter of every option found in conf/: the author of a technique need not test it."""

import inspect
from functools import cache

import pytest

from plugins.base import Plugin, RecipeError, declare
from plugins.declare import Declared
from recipes.check.parameters import (
    borders_fit,
    misfits_refused,
    own,
    pickled,
    takes_share,
    told_in_docstring,
    told_in_file,
)
from recipes.config.catalogue import INHERITED, Catalogue
from recipes.config.composing import as_given, check, resolve
from recipes.engine.module import RecipeModule
from recipes.run.build import build_plugins
from recipes.run.classes import find_class
from tests.harness import build, config_of, is_many, with_companions

CATALOGUE = Catalogue()
OPTIONS = [option for options in CATALOGUE.groups.values() for option in options.values()]


@cache
def class_of(option):
    """The class behind an option; None where it has none."""
    return find_class(option.node["_target_"]) if "_target_" in option.node else None


DECLARED = [option for option in OPTIONS if (kind := class_of(option)) and issubclass(kind, Declared)]
TECHNIQUES = [option for option in DECLARED if issubclass(class_of(option), Plugin)]
each = pytest.mark.parametrize("option", DECLARED, ids=lambda option: f"{option.group}-{option.name}")
each_technique = pytest.mark.parametrize("option", TECHNIQUES, ids=lambda option: f"{option.group}-{option.name}")


def test_every_technique_of_ours_declares_its_parameters():
    for option in TECHNIQUES:
        if option.node["_target_"].startswith("plugins."):
            own_parameters = [name for name in inspect.signature(class_of(option)).parameters if name not in INHERITED]
            assert own_parameters == list(own(class_of(option))), f"{option.path}: declare them in the class's body"


@each
@pytest.mark.parametrize("check", [told_in_file, told_in_docstring, misfits_refused, borders_fit, pickled])
def test_what_is_declared_holds(option, check):
    check(option, class_of(option))


@each_technique
def test_what_acts_step_by_step_takes_a_share_of_the_training(option):
    takes_share(option, class_of(option))


def test_the_share_is_typed_like_any_other_parameter():
    words = ["+augmentation=[mixup,cutout]", "augmentation.mixup.when=[0,0.9]", "+averaging=ema", "averaging.when=[0.75,1]"]
    given = check(CATALOGUE, words)
    made = {plugin.option: plugin.when for plugin in build_plugins(resolve(CATALOGUE, given))}
    assert made["mixup"] == (0.0, 0.9) and made["ema"] == (0.75, 1.0) and made["cutout"] == (0.0, 1.0)
    assert as_given(given) == words
    for word, says in {
        "when=0.5": "must be a list of numbers",
        "when=[0,2]": r"must be 2 numbers in \[0, 1\]",
        "wen=[0,1]": "when",
    }.items():
        with pytest.raises(RecipeError, match=says):
            check(CATALOGUE, ["+augmentation=mixup", f"augmentation.mixup.{word}"])
    for word in ("optimizer.when=[0,1]", "data.when=[0,1]", "trainer.when=[0,1]"):
        with pytest.raises(RecipeError, match="has no parameter when"):
            check(CATALOGUE, [word])


def test_the_catalogue_knows_what_is_inherited():
    inherited = Plugin._own_parameters
    assert inherited.keys() == INHERITED.keys()
    for name, (default, comment) in INHERITED.items():
        assert (list(inherited[name].default), inherited[name].comment) == (default, comment)


@pytest.mark.parametrize(
    "option",
    [option for option in TECHNIQUES if class_of(option).off and not class_of(option).measures_when_off],
    ids=lambda option: f"{option.group}-{option.name}",
)
def test_what_is_off_is_left_out(option):
    name = f"{option.group}/{option.name}"
    config = config_of(with_companions(name))
    node = config[option.group][option.name] if is_many(option.group) else config[option.group]
    node.update(class_of(option).off)
    module = build(config)
    assert isinstance(module, RecipeModule) and name not in [plugin.state_key for plugin in module.plugins]
    assert [plugin.state_key for plugin in module.left_out] == [name]
    assert not any(plugin.state_key == name for hooks in module.hooks.values() for plugin in hooks)
    for parameter, value in class_of(option).off.items():  # one that is on is there
        if value != option.parameters[parameter]:
            node.update({parameter: option.parameters[parameter]})
            assert name in [plugin.state_key for plugin in build(config).plugins]


def test_a_class_with_an_init_of_its_own_is_taken_as_it_is():
    class Own(Plugin):
        off = {"strength": 0.0}

        def __init__(self, strength=1.0):
            self.strength = strength

    class More(Own):
        width: int = declare.count("pixels", default=3)

    assert list(inspect.signature(Own).parameters) == list(inspect.signature(More).parameters) == ["strength"]
    assert Own(0.0).is_off and not Own(0.5).is_off and Own().when == (0.0, 1.0)


def test_own_parameters_come_before_inherited_ones():
    class Base(Declared):
        a: int = declare.count("first", default=1)
        b: int = declare.count("second", default=2, kw_only=True)

    class Sub(Base):
        c: int = declare.count("third", default=3, off=1)

        def __post_init__(self):
            self.sum = self.a + self.b + self.c

    assert str(inspect.signature(Sub)) == "(c=3, a=1, *, b=2)" and Sub.off == {"c": 1} and Sub.c == 3
    assert (Sub(5, 6, b=7).c, Sub(5, 6, b=7).a, Sub(5, 6, b=7).sum) == (5, 6, 18)
    with pytest.raises(TypeError, match="^Sub: too many positional arguments"):
        Sub(1, 2, 3)
