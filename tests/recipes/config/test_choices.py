"""The options of a run are read from what it keeps, whatever is installed where it is read."""

import copy
import json

import pytest

from recipes.compare.comparison import compare
from recipes.compare.runs import find, read
from recipes.config.catalogue import Catalogue
from recipes.config.choices import choices
from recipes.config.tree import option_names
from tests.recipes.compare.fabricated import config, leave
from tests.sparsely import sparsely

CATALOGUE = Catalogue()
SINGLE = [name for name in CATALOGUE.groups if name != "recipe" and CATALOGUE.groups[name] and not CATALOGUE.many(name)]


@pytest.mark.parametrize("group", sparsely(sorted(CATALOGUE.groups)))
def test_every_option_is_found_as_it_was_chosen(group):
    for name in CATALOGUE.groups[group]:
        if group in ("recipe", "hydra") or (group, name) == ("data", "npz"):
            continue
        word = CATALOGUE.spelling(group, name)
        composed = config(word)
        found = choices(CATALOGUE, composed, [word])
        assert found.get(group, []) == ([name] if composed.get(group) else [])
        assert {key: value for key, value in found.items() if key != group} == {
            key: value for key, value in option_names(CATALOGUE, composed).items() if key != group
        }


@pytest.mark.parametrize("group", [name for name in SINGLE if name != "trainer"])
def test_an_option_that_is_not_installed_has_the_name_that_was_typed(group):
    found = config() | {group: {"_target_": "not_installed.parts.mine.Mine", "size": 3}}
    for word in (f"{group}=mine_own", f"+{group}=mine_own"):
        assert choices(CATALOGUE, found, ["seed=1", word])[group] == ["mine_own"]
    assert choices(CATALOGUE, found, [])[group] == ["mine"]
    first = next(iter(CATALOGUE.groups[group]))
    assert choices(CATALOGUE, found, [f"{group}={first}"])[group] == ["mine"]  # a word that the config contradicts


def test_groups_and_options_that_nobody_knows_have_their_names():
    found = config() | {
        "regularizer": {"mine": {"_target_": "not_installed.a.Mine"}, "dropout": {"_target_": "x.y.Dropout"}},
        "ritual": {"_target_": "not_installed.ritual.Ritual"},
        "rites": {"one": {"_target_": "not_installed.One"}, "two": {"_target_": "not_installed.Two"}},
    }
    chosen = choices(CATALOGUE, found, ["+ritual=[dance]"])
    assert (chosen["regularizer"], chosen["ritual"], chosen["rites"]) == (["mine", "dropout"], ["dance"], ["one", "two"])


@pytest.mark.parametrize("name", sorted(CATALOGUE.groups["recipe"]))
def test_what_a_recipe_chooses_is_found(name):
    word = f"recipe={name}"
    found, by_recipe = choices(CATALOGUE, config(word), [word]), CATALOGUE.recipe_choices(name)
    assert all(list(found[group]) == list(options) for group, options in by_recipe.items())


@pytest.mark.parametrize(
    "broken", [{"optimizer": 3}, {"optimizer": {"_target_": 3}}, {"optimizer": {}}, {"optimizer": {"a": 1}}]
)
def test_a_config_of_a_stranger_raises_nothing(broken):
    assert "data" in choices(CATALOGUE, config() | copy.deepcopy(broken), ["optimizer", "=", "x=[a,b]", "recipe=nowhere"])


@pytest.mark.parametrize("older", [False, True])
def test_labels_of_a_package_that_is_not_installed_are_those_that_were_typed(tmp_path, older):
    """Recorded by the run itself; of an older one read from its words."""
    for number, (word, target) in enumerate(
        (("optimizer=adam", "torch.optim.Adam"), ("optimizer=sophia", "not_installed.optim.Sophia"))
    ):
        folder = leave(tmp_path / str(number), "optimizer=adam", "+regularizer=l2")
        result = json.loads((folder / "result.json").read_text())
        result["config"]["optimizer"]["_target_"] = target
        result["config"]["regularizer"]["mine"] = {"_target_": "not_installed.Mine", "strength": number}
        result["command"] = [word, "+regularizer=[l2,mine]"]
        if not older:
            result["choices"] = choices(CATALOGUE, result["config"], result["command"])
            result["command"] = []
        (folder / "result.json").write_text(json.dumps(result))
    found = compare([read(folder, CATALOGUE) for folder in find([tmp_path])], CATALOGUE)
    assert [group.label for group in found.groups] == [
        "optimizer=adam regularizer.mine.strength=0",
        "optimizer=sophia regularizer.mine.strength=1",
    ]


@pytest.mark.parametrize("wrong", [3, ["x"], {"optimizer": "adam"}, {"optimizer": [3]}])
def test_choices_that_no_run_writes_are_refused(tmp_path, wrong):
    folder = leave(tmp_path / "a", choices=wrong)
    assert read(folder, CATALOGUE).status == "broken" and "choices" in read(folder, CATALOGUE).error
