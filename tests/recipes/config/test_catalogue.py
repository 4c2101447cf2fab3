import inspect
import os
import sys
from dataclasses import fields

import pytest

from plugins.errors import RecipeError
from recipes.config.catalogue import FOLDER, Catalogue, Option, installed_folders, package_folder, read_text, read_yaml
from recipes.config.spelling import nearest
from recipes.config.types import expected
from recipes.engine.groups import GroupRules
from recipes.run.classes import find_class
from tests.packages import make_entry_points

CATALOGUE = Catalogue()
OPTIONS = [option for options in CATALOGUE.groups.values() for option in options.values()]


def test_every_file_is_an_option_and_every_group_is_explained():
    files = {path for path in FOLDER.glob("*/*.yaml") if path.parent.name != "study"}
    assert {option.path for option in OPTIONS} == files
    assert [group for group, options in CATALOGUE.groups.items() if options and not CATALOGUE.comments.get(group)] == []
    assert [key for key in CATALOGUE.keys if not CATALOGUE.comments.get(key)] == []


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: f"{option.group}-{option.name}")
def test_every_option_and_parameter_is_explained(option):
    assert option.summary
    if option.group != "recipe":
        assert [name for name in option.parameters if not option.comments.get(name) and name != "name"] == []


@pytest.mark.parametrize("group", [group for group, options in CATALOGUE.groups.items() if options])
def test_options_of_a_group_are_all_wrapped_or_all_flat(group):
    assert len({option.wrapped for option in CATALOGUE.groups[group].values()}) == 1


@pytest.mark.parametrize("option", [option for option in OPTIONS if "_target_" in option.node], ids=lambda option: option.name)
def test_parameters_are_those_of_the_class(option):
    parameters = set(option.parameters) - ({each.name for each in fields(GroupRules)} if option.group == "optimizer" else set())
    inspect.signature(find_class(option.node["_target_"])).bind_partial(**dict.fromkeys(parameters))


def test_which_groups_take_several_options():
    assert all(CATALOGUE.many(group) for group in ("regularizer", "logger"))
    assert not any(CATALOGUE.many(group) for group in ("optimizer", "data", "trainer"))


def test_a_number_in_scientific_notation_is_a_number(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 1e-3\n")
    assert read_yaml(tmp_path / "a.yaml") == {"lr": 0.001}


def test_a_file_is_read_again_once_it_has_changed(tmp_path):
    path = tmp_path / "a.yaml"
    for number in range(9):  # within a moment, and as long as before
        path.write_text(f"lr: {number}\n")
        assert read_yaml(path) == {"lr": number} and read_text(path) == f"lr: {number}\n"
    os.utime(path, (1e9, 1e9))
    assert read_yaml(path) is read_yaml(path) and read_text(path) is read_text(path)
    path.write_text("lr: 7\n")
    assert read_yaml(path) == {"lr": 7}
    (tmp_path / "b.yaml").write_text("lr: 5\n")
    os.utime(tmp_path / "b.yaml", (1e9, 1e9))
    (tmp_path / "b.yaml").replace(path)
    assert read_yaml(path) == {"lr": 5} and Option("group", "a", path).node == {"lr": 5}
    path.unlink()
    with pytest.raises(RecipeError, match="cannot be read"):
        _ = Option("group", "a", path).text


@pytest.mark.parametrize(
    ("value", "default", "comment", "must_be"),
    [
        (3, 1, "", None),
        (3.0, 1, "", "a whole number"),
        (True, 1, "", "a whole number"),
        ("3", 1, "", "a whole number"),
        (None, 1, "", "a whole number"),
        (3, 1.0, "", None),
        (float("inf"), 1.0, "", None),
        (True, 1.0, "", "a number"),
        ("abc", 1.0, "", "a number"),
        (1, True, "", "true or false"),
        ("true", True, "", "true or false"),
        (5, "a", "", "text"),
        ([1], [2, 3], "", None),
        ([], [2, 3], "", None),
        ([0.5], [2, 3], "", "a list of whole numbers"),
        ([1, 0.5], [2.0], "", None),
        (64, [2, 3], "", "a list of whole numbers"),
        (["a"], [], "", None),
        ("a", [], "", "a list"),
        ([], {}, "", "a mapping"),
        ("anything", None, "", None),
        ({"a": 1}, None, "", None),
        ("full", 32, "samples | full", None),
        ("many", 32, "samples | full", "a whole number or full"),
        (None, 32, "samples | null", None),
        ("full", 32, "samples, full or not", "a whole number"),
        ("x", "${seed}", "", None),
    ],
)
def test_the_type_of_the_default_is_the_type(value, default, comment, must_be):
    assert expected(value, default, comment) == must_be


def test_nearest():
    assert nearest("Adam", ["adam", "adamw", "sgd"]) == "adam"
    assert nearest("label-smoothing", ["label_smoothing", "l2"]) == "label_smoothing"
    assert nearest("xyz", ["adam", "sgd"]) is None


def make_package(folder, name, option):
    (folder / name / "conf" / "regularizer").mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('a config folder is found without an import')")
    (folder / name / "conf" / "regularizer" / f"{option}.yaml").write_text(f"# Foreign.\n{option}:\n  _target_: {name}.X\n")


def test_options_of_an_installed_package_appear(tmp_path, monkeypatch, capsys):
    make_package(tmp_path, "foreign_recipes", "foreign")
    make_entry_points(tmp_path, "foreign_recipes", **{"foreign_recipes": "foreign_recipes.conf"})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    folders = installed_folders()
    assert ("foreign_recipes", tmp_path / "foreign_recipes" / "conf") in folders
    assert Catalogue(folders).option("regularizer", "foreign").summary == "Foreign."
    assert capsys.readouterr().err == ""
    assert package_folder("foreign_recipes") == package_folder("foreign_recipes.conf")


def test_a_broken_entry_point_is_one_line(tmp_path, monkeypatch, capsys):
    make_entry_points(tmp_path, "broken_recipes", **{"broken_recipes": "no_such_package.conf"})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    installed_folders()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_package_cannot_take_the_place_of_an_option(tmp_path, monkeypatch, capsys):
    make_package(tmp_path, "hiding_recipes", "dropout")
    catalogue = Catalogue([("hiding", tmp_path / "hiding_recipes" / "conf")])
    assert catalogue.option("regularizer", "dropout").path.is_relative_to(FOLDER)
    assert "hiding brings regularizer/dropout" in capsys.readouterr().err


def test_a_broken_file_is_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(RecipeError, match="a.yaml cannot be read") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


def test_an_option_may_be_a_change_of_another(tmp_path):
    folder = tmp_path / "trainer"
    folder.mkdir()
    (folder / "base.yaml").write_text("# Base.\na: 1 # first\nb: 2 # second\n")
    (folder / "more.yaml").write_text("# More.\ndefaults:\n  - base\n  - _self_\nb: 3 # changed\nc: 4\n")
    option = Option("trainer", "more", folder / "more.yaml")
    assert option.node == option.parameters == {"a": 1, "b": 3, "c": 4}
    assert option.comments["a"] == "first" and option.comments["b"] == "changed" and option.summary == "More."
