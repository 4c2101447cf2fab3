"""The range that an option's file tells of a parameter is the one its class keeps, and is checked before torch is imported."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from plugins.errors import RecipeError
from plugins.inputs import Entry
from recipes.config.catalogue import Catalogue
from recipes.config.composing import check
from recipes.config.quoting import show
from recipes.config.types import RANGE, outside
from recipes.run.build import build_callbacks, build_optimizer
from recipes.run.classes import find_class, instantiate
from tests.command import ROOT, variables

CATALOGUE = Catalogue()
VALUES = (-1, -0.5, 0, 0.5, 1, 1.5, 2, 1000)
TOKENS = {"tokens": Entry((6,), "int64", 0, 0)}
BESIDE = {  # one is a multiple of the other; one is at most the other, or below
    ("transformer", "width"): {"heads": 1},
    ("transformer", "heads"): {"width": 1000},
    ("speed", "low"): {"high": 1000},
    ("speed", "high"): {"low": 0.01},
    ("zoom", "low"): {"high": 1000},
    ("zoom", "high"): {"low": 0.01},
    **{(name, "low"): {"high": 2000.0} for name in ("uniform", "minmax")},
    **{(name, "high"): {"low": -2000.0} for name in ("uniform", "minmax")},
}
SHAPES = {"polynomial": (1,), "pointnet": (1000, 3), "dgcnn": (1000, 3)}  # of samples, for models that are not made for images
NO_CLASS = ("trainer", "logger", "recipe")
OPTIONS = [option for group, options in CATALOGUE.groups.items() if group not in NO_CLASS for option in options.values()]


def built(option, name, value):
    """Whether the option's class takes a value."""
    node = {**option.node, **BESIDE.get((option.name, name), {}), name: value}
    try:
        if option.group == "optimizer":
            build_optimizer({"optimizer": node})
        elif option.group == "callback":
            build_callbacks({"callback": {option.name: node}})
        elif option.group == "model":
            tokens = getattr(find_class(option.node["_target_"]), "takes_named_inputs", False)
            shape = SHAPES.get(option.name, TOKENS if tokens else (1, 16, 16))
            with torch.device("meta"):  # a thousand may be too many for the memory, and is in the range
                instantiate(node, nn.Module, shape=shape, outputs=3)
        else:
            required = {name: "x" for name in ("path", "target") if name in node and node[name] is None}
            instantiate(node | required)
    except RecipeError:
        return False
    return True


def checked(option, name, value):
    """Whether the command line takes it."""
    place = f"{option.group}.{option.name}.{name}" if option.wrapped else f"{option.group}.{name}"
    try:
        check(CATALOGUE, [CATALOGUE.spelling(option.group, option.name), f"{place}={show(value)}"])
    except RecipeError:
        return False
    return True


def numbers(option):
    """The parameters that are a number, with those of null that take one."""
    for name, default in option.parameters.items():
        whole = isinstance(default, int) and not isinstance(default, bool)
        if whole or isinstance(default, float) or (default is None and RANGE.search(option.comments[name])):
            yield name, [value for value in VALUES if not whole or value == int(value)]


@pytest.mark.parametrize("option", OPTIONS, ids=[f"{option.group}-{option.name}" for option in OPTIONS])
def test_what_the_class_refuses_is_refused_by_the_word_and_the_other_way_round(option):
    for name, values in numbers(option):
        for value in values:
            takes = outside(value, option.parameters[name], option.comments[name]) is None
            assert takes or not checked(option, name, value), (name, value)
            if not built(option, name, value):
                assert not takes, f"{name}={value} is refused by the class: tell its range in the comment"
            elif find_class(option.node["_target_"]).__module__.startswith(("plugins.", "recipes.")):
                assert takes, f"{name}={value} is taken by the class, the comment tells another range"


@pytest.mark.parametrize(
    ("value", "comment", "says"),
    [
        (-1, "a, ≥ 0; null: b", "a number ≥ 0"),
        (0, "a, > 0 | .inf for no bound", "a number > 0 or .inf"),
        (1.5, "a, in [0, 1]; what it spans", "a probability between 0 and 1"),
        (0, "a, in (0, 1]", "in (0, 1]"),
        (1, "a, in [0, 1)", "in [0, 1)"),
        (1, "a, ≥ 0", None),
        (-1, "a list of numbers ≥ 0 in words, not at the end", None),
        (True, "a, ≥ 5", None),
    ],
)
def test_the_range_of_a_comment(value, comment, says):
    assert outside(value, 0.5, comment) == says


@pytest.mark.parametrize(
    "word", ["+wrapper=sam wrapper.sam.rho=-1", "max_time=soon", "trainer.num_nodes=0", "--version", "--help lr"]
)
def test_without_torch(tmp_path, word):
    lines = (
        f"import sys, runpy; sys.argv[0] = {str(ROOT / 'train.py')!r}",
        "try: runpy.run_path(sys.argv[0], run_name='__main__')",
        "except SystemExit: pass",
        "assert not {'torch', 'lightning', 'wandb'} & set(sys.modules)",
    )
    code = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code, *word.split()], cwd=tmp_path, env=variables(), check=False)
    assert done.returncode == 0
