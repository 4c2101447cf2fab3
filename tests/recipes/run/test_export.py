"""A run as a file is left only where it predicts what the run does."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Setting, Task
from recipes.config.catalogue import Catalogue
from recipes.engine.module import RecipeModule
from recipes.run.export import export
from recipes.run.exported import Exported, output_name
from recipes.run.formats import FORMATS, Onnx, SafeTensors, TorchExport, reason
from tests.command import SMALL, command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place") / "run"
    done = command("train.py", *SMALL, f"hydra.run.dir={folder}", cwd=folder.parent, forked=True)
    assert done.returncode == 0, done.stderr
    return folder


class Rounded(SafeTensors):
    """Loses what 16 bits do not hold."""

    def read(self, path):
        """The weights, rounded."""
        predict = super().read(path)
        for parameter in self.module.parameters():
            parameter.data = parameter.data.half().float()
        return predict


class Fewer(SafeTensors):
    """Loses a class."""

    def read(self, path):
        """All outputs but the last."""
        predict = super().read(path)
        return lambda *inputs: {name: value[:, :-1] for name, value in predict(*inputs).items()}


@pytest.mark.parametrize(
    ("kind", "line"), [(Rounded, "predicts probability_y with a difference of"), (Fewer, "gives probability_y the shape")]
)
def test_a_file_that_predicts_something_else_is_not_left(run, tmp_path, monkeypatch, kind, line):
    monkeypatch.setitem(FORMATS, "safetensors", kind)
    output = tmp_path / "model.safetensors"
    output.write_text("of before")
    with pytest.raises(RecipeError, match=line):
        export(Catalogue(), run, [], "safetensors", output)
    assert output.read_text() == "of before" and list(tmp_path.iterdir()) == [output]


def test_numbers_are_compared_by_the_largest_of_them_however_small_their_unit(folder, tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    np.savez(tmp_path / "own.npz", x=x, y=1e-6 * x[:, :1])
    folder.train("model=linear", "data=npz", f"data.path={tmp_path / 'own.npz'}", "data.batch_size=8", "max_steps=4")
    output = tmp_path / "model.safetensors"
    assert 0 <= export(Catalogue(), folder.path, [], "safetensors", output)["y"] <= 1e-5
    monkeypatch.setitem(FORMATS, "safetensors", Rounded)
    with pytest.raises(RecipeError, match="predicts y with a difference of"):
        export(Catalogue(), folder.path, [], "safetensors", output)


def test_the_part_is_looked_at_before_it_has_its_name(run, tmp_path, monkeypatch):
    seen = []

    class Looking(SafeTensors):
        """Looks at what lies there."""

        def read(self, path):
            """As ever."""
            seen.append((path.name, sorted(each.name for each in tmp_path.iterdir())))
            return super().read(path)

    monkeypatch.setitem(FORMATS, "safetensors", Looking)
    found = export(Catalogue(), run, [], "safetensors", tmp_path / "model.safetensors")
    ((part, there),) = seen
    assert there == [part] and part != "model.safetensors" and found["probability_y"] <= 1e-5
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


def module_of(model, *tasks):
    module = RecipeModule(model, nn.CrossEntropyLoss(), torch.optim.SGD)
    module.build([], Setting((4,), tasks, 0), devices=1)
    return module.eval()


class Branching(nn.Module):
    """Asks a number of a sample which way to go."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x) if x.sum() > 0 else self.head(-x)


def test_a_branch_on_numbers_is_told_in_a_line(capfd):
    module = module_of(Branching(), Task("", "classification", 3))
    with pytest.raises(Exception, match=".") as caught:
        TorchExport(module, Exported(module, None), [torch.rand(3, 4)]).program()
    said = reason(caught.value)
    assert said and "\n" not in said and capfd.readouterr() == ("", "")


def test_outputs_by_name_and_program_of_any_number_of_samples():
    tasks = Task("kind", "classification", 3), Task("size", "regression", 1)
    several = Task("tags", "multilabel", 2)
    assert [output_name(task) for task in (*tasks, several)] == ["probability_kind", "size", "probability_tags"]

    class Both(nn.Module):
        """Two heads."""

        def __init__(self):
            super().__init__()
            self.kind, self.size = nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, x):
            return {"kind": self.kind(x), "size": self.size(x)}

    model = Both()
    module = module_of(model, *tasks)
    program = TorchExport(module, Exported(module, None), [torch.rand(3, 4)]).program().module()
    for count in (1, 2, 7):
        x = torch.rand(count, 4)
        found = program(x)
        torch.testing.assert_close(found["probability_kind"], model.kind(x).softmax(1))
        torch.testing.assert_close(found["size"], model.size(x))


def test_packages_that_lack_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RecipeError, match=r'^format=onnx needs onnxruntime: pip install -e "\.\[export\]"$'):
        Onnx.expect_installed("onnx")
