"""The command export.py: a file that predicts what a finished run does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from plugins.base import RecipeError
from recipes.cli.export import file_of
from recipes.config.catalogue import Catalogue
from recipes.run.export import export
from recipes.run.predictor import load
from tests.command import command

X = load_digits().images.astype("float32")[:, None] / 16
COLOURS = ("red", "green", "blue")


def run(script, *words, cwd):
    return command(script, *words, cwd=cwd, forked=True)


def train(folder, *words):
    words = ("logger=[]", "trainer.accelerator=cpu", "max_steps=30", f"hydra.run.dir={folder}", *words)
    done = run("train.py", *words, cwd=folder.parent)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run on images, one on a table, and one on sequences of different length."""
    folder = tmp_path_factory.mktemp("place")
    draws = np.random.default_rng(0)
    train(folder / "images", "model=linear")
    with open(folder / "table.csv", "w") as file:
        print("age,colour,weight,kind", file=file)
        for number in range(100):
            colour = COLOURS[draws.integers(3)]
            print(f"{draws.integers(1, 90)},{colour},{draws.normal():.3f},{'cat' if number % 3 else 'dog'}", file=file)
    train(folder / "table", "data=csv", f"data.path={folder}/table.csv", "data.target=kind", "model=linear")
    x, mask = draws.normal(size=(60, 3, 2)).astype("float32"), np.arange(3) < draws.integers(0, 4, (60, 1))
    np.savez(folder / "steps.npz", x=x, mask=mask, y=(300 + 50 * draws.normal(size=(60, 1))).astype("float32"))
    words = ("model=rnn", "model.hidden=4", "loss=mse")
    train(folder / "steps", "data=npz", f"data.path={folder}/steps.npz", "data.input=[x,mask]", *words)
    return folder


def predictions(place, name):
    """What predict.py says of the run's test split: the names of the samples, and the numbers of each."""
    found = load(place / name).predict_data(elsewhere=False)
    return [int(name) for name in found.ids], found.of().numpy()


def test_onnx_takes_raw_images_of_any_number(place):
    import onnxruntime

    done = run("export.py", "images", "format=onnx", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["input    x: float32 (samples, 1, 8, 8)", "output   probability_y: 10 classes"]
    assert "compared 128 samples of the test split" in done.stdout and done.stdout.endswith("file     model.onnx\n")
    rows, expected = predictions(place, "images")
    session = onnxruntime.InferenceSession(str(place / "model.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 2, len(rows)):
        (p,) = session.run(["probability_y"], {"x": X[rows[:count]]})
        np.testing.assert_allclose(p, expected[:count], atol=1e-5)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["inputs"]) == {"x": {"dtype": "float32", "shape": ["samples", 1, 8, 8]}}
    assert json.loads(known["tasks"])[0]["outputs"] == 10 and json.loads(known["run"]) == "images"


def test_a_table_is_encoded_by_what_the_file_tells(place, capsys):
    export(Catalogue(), place / "table", [], "torch_export", place / "table.pt2")
    assert "columns as they are encoded; how is told by data_state in the file" in capsys.readouterr().out
    extra = {name: "" for name in ("tasks", "inputs", "outputs", "data_state")}
    program = torch.export.load(place / "table.pt2", extra_files=extra).module()
    told = {name: json.loads(value) for name, value in extra.items()}
    assert told["tasks"][0]["names"] == ["cat", "dog"] and told["outputs"]["probability_y"]["shape"] == ["samples", 2]
    columns = told["data_state"]["columns"]
    rows, expected = predictions(place, "table")
    lines = (place / "table.csv").read_text().splitlines()
    encoded = []
    for row in rows:
        cells = dict(zip(lines[0].split(","), lines[row - 1].split(","), strict=True))
        numbers = [float(cells[column["name"]]) for column in columns if column["kind"] == "numeric"]
        kinds = [(cells[column["name"]], column["categories"]) for column in columns if column["kind"] == "categorical"]
        encoded.append([*numbers, *(float(cell == category) for cell, categories in kinds for category in categories)])
    found = program(torch.tensor(encoded))["probability_y"].detach()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sequences_go_in_with_their_mask_and_numbers_come_out_in_their_units(place, capsys):
    export(Catalogue(), place / "steps", [], "torch_export", place / "steps.pt2")
    lines = ["input    x: float32 (samples, 3, 2)", "input    mask: bool (samples, 3)", "output   y: a number"]
    assert capsys.readouterr().out.splitlines()[:3] == lines
    rows, expected = predictions(place, "steps")
    with np.load(place / "steps.npz") as data:
        x, mask = (torch.from_numpy(data[name][rows]) for name in ("x", "mask"))
    program = torch.export.load(place / "steps.pt2").module()
    assert 200 < expected.mean() < 400
    np.testing.assert_allclose(program(x, mask)["y"].detach(), expected, rtol=1e-5)
    changed = program(x.where(mask.unsqueeze(-1), torch.tensor(99.0)), mask)["y"]  # what the mask leaves out does not count
    np.testing.assert_allclose(changed.detach(), expected, rtol=1e-5)


def test_safetensors_hold_all_that_is_needed(place):
    from safetensors import safe_open

    export(Catalogue(), place / "images", [], "safetensors", place / "model.safetensors")
    with safe_open(place / "model.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        known = {name: json.loads(value) for name, value in file.metadata().items()}
    assert known["config"]["model"]["_target_"].startswith("recipes.models.linear")
    rows, expected = predictions(place, "images")
    by_end = {name.rpartition(".")[2]: value for name, value in weights.items()}
    x = (torch.from_numpy(X[rows]) - by_end["shift"]) * by_end["scale"]
    p = (x.flatten(1) @ by_end["weight"].T + by_end["bias"]).softmax(1)
    np.testing.assert_allclose(p, expected, atol=1e-5)


def test_dropout_at_inference_fits_no_file_but_the_run_without_it_does(place):
    train(place / "dropping", "+regularizer=dropout", "+inference=mc_dropout", "inference.samples=3")
    output = place / "dropping.pt2"
    with pytest.raises(RecipeError, match=r"\(inference/mc_dropout\), by random numbers .*: type inference=none$"):
        export(Catalogue(), place / "dropping", [], "torch_export", output)
    assert not list(place.glob("dropping.pt2*"))
    export(Catalogue(), place / "dropping", ["inference=none"], "torch_export", output)
    assert output.exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("images", "table", "format=onnx"), "expected one run folder, got 2"),
        (("nowhere", "format=safetensors"), "nowhere is no run"),
        (("images", "format=torch_export", "data=npz", "data.path=gone.npz"), "data.path must be an npz file"),
        (("images", "format=onnx", "--multirun"), "export.py has no flags but --help, --version and --config-dir"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(place, words, line):
    before = sorted(place.rglob("*"))
    done = run("export.py", *words, cwd=place)
    assert done.returncode == 2 and line in done.stderr and done.stderr.count("\n") == 1
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("form", "name", "line"),
    [
        (None, None, "no format is given: expected one of format=onnx, format=torch_export, format=safetensors"),
        ("onxx", None, "there is no format=onxx; did you mean format=onnx?"),
        ("onnx", "x.pt2", "output=x.pt2: expected a file that ends with .onnx for format=onnx"),
        ("onnx", "none/x.onnx", "output=none/x.onnx: expected a file in a folder that there is"),
    ],
)
def test_files_that_cannot_be(form, name, line):
    with pytest.raises(RecipeError) as caught:
        file_of(form, name)
    assert str(caught.value) == line


def test_format_and_file_tell_each_other():
    assert file_of("onnx", None) == ("onnx", Path("model.onnx"))
    assert file_of(None, "a.safetensors") == ("safetensors", Path("a.safetensors"))


def test_help(tmp_path):
    shown = run("export.py", "--help", cwd=tmp_path).stdout
    assert "python export.py RUN_FOLDER format=onnx" in shown and "mc_dropout" in shown
