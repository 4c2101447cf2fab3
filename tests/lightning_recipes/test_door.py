"""`from lightning_recipes import …`: every class by one name that says what it is, each when it is asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lightning_recipes
from recipes.config.moved import MOVED

ROOT = Path(__file__).parents[2]
OWN = ("plugins", "recipes")


def targets():
    """The classes of ours that options name, by the option."""

    def found(node):
        if isinstance(node, dict):
            if isinstance(node.get("_target_"), str):
                yield node["_target_"]
            for value in node.values():
                yield from found(value)

    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        for target in found(yaml.safe_load(path.read_text())):
            if target.split(".")[0] in OWN:
                yield f"{path.parent.name}/{path.stem}", target


TARGETS = dict(targets())


@pytest.mark.parametrize("option", TARGETS)
def test_every_class_of_an_option_has_its_own_name(option):
    module, _, name = TARGETS[option].rpartition(".")
    missing = f"add to lightning_recipes/__init__.pyi: from {module} import {name} as {name}"
    assert name in lightning_recipes.PLACES, missing
    assert getattr(lightning_recipes, name) is getattr(importlib.import_module(module), name)
    assert lightning_recipes.PLACES[name] == module


def test_a_name_belongs_to_one_class_and_to_none_of_the_libraries_that_stand_beside_it():
    import lightning as L
    from torch import nn

    tree = ast.parse((ROOT / "lightning_recipes" / "__init__.pyi").read_text())
    handed_on = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    names = [alias.name for alias in handed_on]
    assert len(names) == len(set(names)) and all(alias.asname == alias.name for alias in handed_on)
    assert sorted(names) == lightning_recipes.__all__ == dir(lightning_recipes)
    by_name = {}
    for target in TARGETS.values():
        by_name.setdefault(target.rpartition(".")[2], set()).add(target)
    assert all(len(places) == 1 for places in by_name.values())
    # what one writes beside it: `nn.Dropout` is another thing, and known to be a layer
    assert {name for name in by_name if hasattr(nn, name) or hasattr(L, name)} <= {"Dropout"}


@pytest.mark.parametrize("name", lightning_recipes.__all__)
def test_a_name_is_that_of_what_it_stands_for(name):
    found = getattr(lightning_recipes, name)
    assert found.__name__ == name and found.__doc__


@pytest.mark.slow
def test_what_is_asked_for_is_imported_and_no_more():
    code = (
        "import sys, lightning_recipes as l\n"
        "assert not {'torch', 'lightning', 'hydra', 'plugins', 'recipes'} & set(sys.modules)\n"
        "assert 'SAM' in dir(l) and not {'torch', 'plugins'} & set(sys.modules)\n"
        "l.RecipeError\n"
        "from lightning_recipes import SAM\n"
        "assert 'plugins.wrapper.sam' in sys.modules\n"
        "assert 'plugins.regularizer.dropout' not in sys.modules and 'hydra' not in sys.modules\n"
        "from lightning_recipes import *\n"
        "assert FGSM and RecipeModule and load_run\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match="has no Dropuot; did you mean Dropout?"):
        lightning_recipes.Dropuot  # noqa: B018
    with pytest.raises(ImportError):
        from lightning_recipes import Norm  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.slow
def test_type_checkers_know_the_names(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(
        "from lightning_recipes import SAM, ClipNorm, Plugin\nplugins: list[Plugin] = [SAM(), ClipNorm(1.0)]\nreveal_type(SAM)\n"
        "from lightning_recipes import Norm\nSAM(radius=1)\n"
    )
    words = ["--cache-dir", str(tmp_path / "cache"), "--ignore-missing-imports", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, str(tmp_path / "script.py")], cwd=ROOT, capture_output=True, text=True
    )
    lines = [line.partition("script.py:")[2] for line in done.stdout.splitlines()[:-1]]
    assert [line.partition(": ")[0] for line in lines if "error" in line] == ["4", "5"], done.stdout + done.stderr
    assert 'plugins.wrapper.sam.SAM"' in next(line for line in lines if line.startswith("3:"))


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_leads_straight_to_the_one_of_today(old):
    new = MOVED[old]
    assert new not in MOVED
    module, _, name = new.rpartition(".")
    assert getattr(importlib.import_module(module), name).__module__ == module
    module, _, name = old.rpartition(".")
    if (ROOT / module.replace(".", "/")).with_suffix(".py").exists():
        there = vars(importlib.import_module(module)).get(name)
        assert there is None or not there.__module__.startswith(OWN)  # never given to another class
