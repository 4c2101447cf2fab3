import copy
import csv
import json
import shutil
from functools import cache

import pytest
import yaml

from plugins.base import Plugin, Stage
from recipes.config.catalogue import Catalogue
from recipes.config.changing import read_run
from recipes.config.composing import compose, finish
from recipes.run import run, train

SMALL = ("logger=[]", "trainer.progress=false", "trainer.accelerator=cpu")


@cache
def composed(words):
    """The config of these words, which many runs of a test have in common."""
    return finish(Catalogue(), compose(words), words)


class Folder:
    """A run folder and what it holds."""

    def __init__(self, path):
        self.path = path

    def train(self, *words, further=()):
        """`python train.py` of a small run, in this process; words of an earlier run stand in its config."""
        if any(word.startswith("resume=") for word in words):
            config = run_config(self.path) | {"resume": str(self.path)}
            for word in words:
                name, value = word.split("=")
                if name != "resume":
                    config[name] = yaml.safe_load(value)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            words = [*SMALL, *words]
            if not any(word.startswith("model=") for word in words):
                words += ["model=mlp", "model.hidden=[16]"]
            if sum(word.startswith("logger=") for word in words) > 1:
                words.remove("logger=[]")
            config = copy.deepcopy(composed(tuple(words)))
        return train.train(config, self.path, words)

    def resume(self, *words):
        return self.train(f"resume={self.path}", *words)

    @property
    def result(self):
        return json.loads((self.path / "result.json").read_text())

    @property
    def rows(self):
        """metrics.csv, without the columns that a row has not."""
        with open(self.path / "metrics.csv", newline="") as file:
            return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]

    def copy(self, path):
        return Folder(shutil.copytree(self.path, path))


def run_config(path):
    """The config of a run, checked as train.py checks it."""
    return read_run(Catalogue(), path)


class Extra(Plugin):
    """A technique of the test's own."""

    stage, group, option = Stage.DIAGNOSTICS, "test", "extra"


@pytest.fixture
def folder(tmp_path):
    """An empty run folder."""
    return Folder(tmp_path / "run")


@pytest.fixture
def folders(tmp_path):
    """Run folders by name."""
    return lambda name: Folder(tmp_path / name)


@pytest.fixture
def with_plugin(monkeypatch):
    """Lets every run have further plugins, made by the given functions."""
    original = run.build_plugins

    def add(*makers):
        for module in (run, train):
            monkeypatch.setattr(module, "build_plugins", lambda config: [*original(config), *(make() for make in makers)])

    return add


@pytest.fixture
def extra():
    """The base class of a test's own technique."""
    return Extra
