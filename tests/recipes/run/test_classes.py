"""What a config may name, and what is made of it."""

import sys

import pytest
from torch import nn

from plugins.base import Plugin, RecipeError
from recipes.config import own
from recipes.run.classes import find_class, instantiate, make_data


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "is refused: a config may name classes of plugins, recipes, torch"),
        ("builtins.eval", "is refused"),
        ("subprocess.Popen", "is refused"),
        ("torch.hub.load", "is refused: expected a class"),
        ("torch.nn.functional.relu", "is refused: expected a class"),
        ("torch.no_such", "names nothing that can be imported"),
        ("torch", "names nothing"),
        ("plugins..dropout", "names nothing"),
        ("", "is refused"),
        (".Dropout", "is refused"),
        ("plugins.base.os", "names nothing"),
        ("recipes.run.classes.importlib", "is refused: expected a class"),
    ],
)
def test_only_classes_that_are_known_are_found(target, message):
    with pytest.raises(RecipeError, match=message) as error:
        find_class(target)
    assert "\n" not in str(error.value)


def test_a_class_of_another_kind_is_refused():
    with pytest.raises(RecipeError, match="expected a class of kind Plugin"):
        instantiate({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, Plugin)
    with pytest.raises(RecipeError, match="expected a class of plugins or recipes"):
        instantiate({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1})
    with pytest.raises(RecipeError, match="expected a config with _target_"):
        instantiate({"p": 1})


def test_what_is_typed_may_be_imported_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "ownfile.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, shape, outputs, kernel=(3, 3)):\n"
        "        super().__init__()\n        self.kernel = kernel\n\n\nclass Other:\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr(own, "trusted", set())
    node = {"_target_": "ownfile.Net", "_source_": "sha256:0", "kernel": [5, 5]}
    with pytest.raises(RecipeError, match="is refused"):
        instantiate(node, nn.Module, shape=(1,), outputs=2)
    own.trusted |= {"ownfile.Net", "ownfile.Other"}
    assert instantiate(node, nn.Module, shape=(1,), outputs=2).kernel == (5, 5)  # as its default is
    with pytest.raises(RecipeError, match="expected a Data, a LightningDataModule or a Dataset"):
        make_data({"_target_": "ownfile.Other"})
    with pytest.raises(RecipeError, match="refused: expected a class of kind Module"):
        find_class("ownfile.Other", nn.Module)
    sys.modules.pop("ownfile")
