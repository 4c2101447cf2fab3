"""Each page of docs/contributing has a whole example: it is written into a package as it stands, tested by its own test, and trained."""

import math
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from plugins.declare import Declared
from plugins.hooks import HOOKS
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.composing import check, compose, finish
from recipes.config.searching import register
from recipes.run.classes import find_class
from recipes.run.train import train
from tests.packages import make_entry_points

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs" / "contributing").glob("*.md") if path.stem != "index")
EXAMPLE = re.compile(r"^\*\*`([\w/.]+)`\*\*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```bash\npython train\.py (.*)\n```$", re.MULTILINE)
LINES = 90  # of prose and tables, without code: two screens
SHORT = ["max_steps=4", "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu"]
each = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


@pytest.fixture
def example(path, tmp_path, monkeypatch):
    """The files of a page in a package that can be imported, and found by Hydra."""
    files = dict(EXAMPLE.findall(path.read_text()))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        for folder in list((tmp_path / name).relative_to(tmp_path).parents)[:-1]:
            if folder.parts[:2] != ("my_package", "conf"):
                (tmp_path / folder / "__init__.py").touch()
    make_entry_points(tmp_path, "my_package", mine="my_package.conf")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(ROOT)  # for the paths of data
    register(installed_folders())
    yield files
    register([])
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def options(files):
    """Group and option of each config file."""
    return [re.fullmatch(r"my_package/conf/(\w+)/(\w+)\.yaml", name).groups() for name in files if name.endswith(".yaml")]


@each
def test_the_example_trains_and_passes_its_own_test(path, example, tmp_path):
    catalogue = Catalogue(installed_folders())
    added = options(example)
    assert added, "a page has a config file"
    for group, name in added:
        assert name not in Catalogue().groups.get(group, {}), "an option of ours has that name: choose another for the page"
        option = catalogue.option(group, name)
        kind = find_class(option.node["_target_"])
        if issubclass(kind, Declared):  # the file tells what is declared, or less
            for parameter in option.parameters:
                held = kind.declared_parameters[parameter]
                assert (option.parameters[parameter], option.comments[parameter]) == (held.default, held.comment)
    commands = COMMAND.findall(path.read_text())
    assert commands and all(any(name in command for _, name in added) for command in commands)
    for number, command in enumerate(commands):
        words = check(catalogue, [*shlex.split(command), *SHORT])
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        result = train(finish(catalogue, compose(words), words), folder, words)
        assert result["status"] == "finished" and math.isfinite(result["metrics"]["val/loss"])
        for group, name in added:
            assert name in result["choices"][group]
            if group not in ("model", "data", "loss", "scheduler", "optimizer"):
                assert name in result["techniques"]
    tests = [name for name in example if name.startswith("tests/")]
    assert tests, "a page has an oracle test"
    for name in tests:
        names = {"__name__": "example"}
        exec(compile(example[name], name, "exec"), names)
        found = [value for key, value in names.items() if key.startswith("test_")]
        assert found
        for function in found:
            function()


@each
def test_a_page_is_two_screens(path):
    prose = re.sub(r"^```\w*\n.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(prose.splitlines()) <= LINES
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert f"contributing/{path.name}" in navigation
    assert f"]({path.name})" in (path.parent / "index.md").read_text()


def test_every_hook_is_told_on_some_page():
    told = " ".join(path.read_text() for path in PAGES)
    assert not [hook.name for hook in HOOKS if f"`{hook.name}" not in told]


def test_every_group_has_a_page():
    """A kind of option without a page is a kind that nobody can add."""
    told = " ".join(path.read_text() for path in [*PAGES, ROOT / "docs" / "contributing" / "index.md"])
    plain = {"trainer", "logger", "recipe", "callback"}  # settings, which no class of a contributor's stands behind
    assert not [group for group in set(Catalogue().groups) - plain if group not in told]


def test_the_technique_of_ten_minutes_is_what_it_says():
    """Its file tells what its class declares, and its class computes what its docstring says."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = {"__name__": "plugins.regularizer.example"}
    exec(compile(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], "CONTRIBUTING.md", "exec"), names)
    kind = names["L1"]
    held = kind.declared_parameters["weight"]
    assert re.search(rf"^  weight: 1\.0e-05 # {re.escape(held.comment)}$", text, re.MULTILINE) and held.default == 1e-5
    layer = nn.Linear(5, 3)
    found = kind(0.25).penalty(SimpleNamespace(model=layer), None, {})
    torch.testing.assert_close(found, 0.25 * layer.weight.abs().sum())
