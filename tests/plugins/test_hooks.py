"""The table of hooks is the contract: each method of an option is a row, and each row a method."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from lightning import Callback
from torch import nn

from plugins.base import HOOKS, Option, Plugin, RecipeError, Selection, Setting, Stage, Task, implementers, right_on_shards
from recipes.engine.module import RecipeModule
from tests.sparsely import sparsely

ROOT = Path(__file__).parents[2]
OWN = {"record", "acts"}  # what options use, and do not define
SETTING = Setting((4,), (Task("", "classification", 3),))


def test_each_method_is_a_hook_and_each_hook_a_method():
    methods = {name for name, value in vars(Option).items() if not name.startswith("_") and callable(getattr(Option, name))}
    hooks = [hook.name for hook in HOOKS]
    assert set(hooks) == {name for name in methods if not isinstance(vars(Option)[name], property)} - OWN
    assert len(hooks) == len(set(hooks))
    assert not {name for name in vars(Plugin) if callable(getattr(Plugin, name)) and not name.startswith("_")}
    assert not set(hooks) & set(dir(Callback))


@pytest.mark.parametrize(
    "hook", sparsely(hook for hook in HOOKS if hook.moment in ("step", "evaluation", "end")), ids=lambda hook: hook.name
)
def test_the_engine_calls_each_hook_by_its_name(hook):
    called = set()
    for file in [*(ROOT / "recipes").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called.add(node.func.attr)
    assert hook.name in called


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook.alone], ids=lambda hook: hook.name)
def test_what_one_can_do_is_refused_to_two(hook):
    def one(name):
        return type(name, (Plugin,), {hook.name: lambda self, *_: None, "option": name, "group": "", "stage": Stage.PENALTY})()

    module = RecipeModule(nn.Linear(4, 3), nn.CrossEntropyLoss(), lambda groups: None)
    with pytest.raises(RecipeError, match="^first and second both define"):
        module.build([one("first"), one("second")], SETTING, devices=1)


class Speaking(Option, nn.Linear):
    refuses = {"speaking/other": "it speaks for itself; leave one out"}
    checked = ()

    def check(self, selection: Selection) -> None:
        self.checked = (*self.checked, selection)

    def after_step(self, module, optimizer):
        """Something."""


class Other(Plugin):
    stage, group, option = Stage.PENALTY, "speaking", "other"


def test_a_model_that_is_an_option_is_asked_like_a_technique():
    module = RecipeModule(Speaking(4, 3), nn.CrossEntropyLoss(), lambda groups: None)
    module.build([], SETTING, devices=1)
    assert module.hooks["after_step"] == [module.model] and len(module.model.checked) == 1
    assert not right_on_shards(Speaking) and right_on_shards(Other())
    module = RecipeModule(Speaking(4, 3), nn.CrossEntropyLoss(), lambda groups: None)
    with pytest.raises(RecipeError, match="cannot be combined with speaking/other: it speaks for itself"):
        module.build([Other()], SETTING, devices=1)
    module = RecipeModule(nn.Linear(4, 3), nn.CrossEntropyLoss(), lambda groups: None)
    module.build([Other()], SETTING, devices=1)
    assert (
        not module.hooks["after_step"] and not module.others
    )  # what is no option is never asked, whatever its methods are called


def test_classes_and_objects_define_the_same_hooks():
    assert implementers([Speaking], "after_step") == [Speaking] and not implementers([Speaking, nn.Linear], "penalty")
    assert inspect.ismethod(Option.group_parameters) and not implementers([Speaking, Other()], "group_parameters")
