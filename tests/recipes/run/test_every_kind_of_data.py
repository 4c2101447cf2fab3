"""Of each kind of data a run's test, its predictions and its exported file are one and the same function."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch.nn import functional as F

from recipes.config.catalogue import Catalogue
from recipes.config.changing import read_run
from recipes.run.build import build_data, load_run
from recipes.run.export import export
from recipes.run.predictor import load

DIGITS = load_digits()
IMAGES = (DIGITS.images[:240] * 15.9).astype(np.uint8)
CLASSES = DIGITS.target[:240]
STEPS = ("max_steps=20", "data.test=0.3")
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def table(path, source, target):
    """A real table with a column of text in it, and holes."""
    draw = np.random.default_rng(0)
    words = np.array(["low", "middle", "high"])[np.digitize(source.data[:, 2], np.quantile(source.data[:, 2], [0.3, 0.7]))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*source.feature_names, "level", "y"])
        for row, word, y in zip(source.data, words, target, strict=True):
            writer.writerow([*("" if draw.random() < 0.05 else cell for cell in [*row, word]), y])
    return f"data.path={path}"


def of_classes(place):
    source = load_breast_cancer()
    return "data=csv", table(place / "a.csv", source, source.target_names[source.target]), "data.target=y", "data.impute=median"


def of_a_number(place):
    source = load_diabetes()
    return "data=csv", table(place / "a.csv", source, source.target), "data.target=y", "data.impute=median"


def arrays(place, **given):
    np.savez(place / "a.npz", **given)
    return "data=npz", f"data.path={place / 'a.npz'}"


def features(place):
    return arrays(place, x=IMAGES.reshape(240, 64).astype(np.float32), y=CLASSES)


def on_disk(place):
    return *arrays(place, x=IMAGES, y=CLASSES), "data.in_memory=false", "model=cnn"


def numbers(place):
    x = IMAGES.reshape(240, 64).astype(np.float32)
    return arrays(place, x=x, y=(300 + x @ np.random.default_rng(0).normal(size=(64, 2))).astype(np.float32))


def maps(place):
    return *arrays(place, x=IMAGES, y=(IMAGES > 100).astype(int)), "model=fcn"


def labels(place):
    have = np.stack([CLASSES % 2 == 0, CLASSES > 4, CLASSES % 3 == 0], 1)
    return arrays(place, x=IMAGES.reshape(240, 64).astype(np.float32), y=have)


def sequences(place):
    mask = np.arange(8) < np.random.default_rng(0).integers(2, 9, (240, 1))
    given = arrays(place, x=IMAGES.astype(np.float32) / 255, mask=mask, y=CLASSES)
    return *given, "data.input=[x,mask]", "model=rnn", "model.hidden=8", "preprocessing=none"


def tokens(place):
    words = np.random.default_rng(1).integers(0, 20, (240, 12))
    mask = np.arange(12) < np.random.default_rng(2).integers(3, 13, (240, 1))
    given = arrays(place, tokens=words, mask=mask, y=(words[:, 0] > 9).astype(int))
    return *given, "data.input=[tokens,mask]", "model=transformer", "preprocessing=none"


def points(place):
    return "data=points", "data.points=16", "model=pointnet", "preprocessing=none", "data.train_samples=200"


def folder_of_images(place):
    for number, (image, label) in enumerate(zip(IMAGES, CLASSES, strict=True)):
        (place / "images" / f"digit {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / "images" / f"digit {label}" / f"{number:03}.png")
    return "data=image_folder", f"data.path={place / 'images'}", "data.workers=1", "model=cnn"


def parquet(place):
    datasets = pytest.importorskip("datasets")
    columns = {"image": [Image.fromarray(image) for image in IMAGES], "digit": CLASSES}
    kinds = datasets.Features({"image": datasets.Image(), "digit": datasets.ClassLabel(num_classes=10)})
    (place / "rows").mkdir()
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(place / "rows" / "train.parquet")
    words = ("data=huggingface", f"data.path={place / 'rows'}", "data.input=image", "data.target=digit")
    return *words, "data.workers=1", "model=cnn"


KINDS = {
    "csv, classes": of_classes,
    "csv, a number": of_a_number,
    "npz, features": features,
    "npz on disk, images": on_disk,
    "npz, numbers": numbers,
    "class maps": maps,
    "several labels": labels,
    "sequences with a mask": sequences,
    "tokens with a mask": tokens,
    "points": points,
    "image_folder": folder_of_images,
    "huggingface": parquet,
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def run(request, folder, tmp_path, monkeypatch):
    """A run on a kind of data, short as it is; its test split, raw, and what its weights make of it."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder.train(*STEPS, *request.param(tmp_path))
    data = build_data(read_run(Catalogue(), folder.path))
    data.setup()
    x, targets = data.splits["test"].fetch(torch.arange(len(data.splits["test"])))
    module = load_run(folder.path)
    inputs = module.inputs_of(x)
    with torch.no_grad():
        outputs = module.eval().outputs(inputs)[""]
    return folder, data.tasks[0], inputs, targets[""], outputs


def loss_of(task, outputs, targets):
    """By torch, in the units of the targets; of labels that a sample may have, and of numbers, the mean over all of them."""
    if task.kind == "classification":
        return F.cross_entropy(outputs, targets)
    if task.kind == "multilabel":
        return F.binary_cross_entropy_with_logits(outputs, targets.float())
    return F.mse_loss(outputs, targets)


def test_predictions_are_those_of_the_runs_own_test(run):
    folder, task, _, targets, outputs = run
    assert float(loss_of(task, outputs, targets)) == pytest.approx(folder.result["metrics"]["test/loss"], rel=1e-4)
    found = load(folder.path).predict_data(elsewhere=False)
    torch.testing.assert_close(found.of(), task.probabilities(outputs), **EXACT)
    assert len(found.ids) == len({*found.ids}) == len(targets)


@pytest.mark.slow
def test_exported_files_predict_the_same(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, task, inputs, _, outputs = run
    expected = task.probabilities(outputs)
    given = inputs if isinstance(inputs, dict) else {"x": inputs}
    export(Catalogue(), folder.path, [], "onnx", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    torch.testing.assert_close(torch.from_numpy(found), expected, **EXACT)
    export(Catalogue(), folder.path, [], "torch_export", tmp_path / "a.pt2")
    (found,) = torch.export.load(tmp_path / "a.pt2").module()(*given.values()).values()
    torch.testing.assert_close(found.detach(), expected, **EXACT)
