"""What a run leaves for a comparison: confusion.json and histograms.csv of real runs."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from plugins.base import RecipeError, derive_seed
from plugins.sites import DROPOUTS
from recipes.compare.runs import read
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, change, read_run
from recipes.engine.checkpoint import load_checkpoint
from recipes.run.build import build_data, load_run
from recipes.run.evaluate import evaluate
from tests.command import command
from tests.recipes.conftest import Folder


def confusion(folder):
    """What confusion.json has for each task."""
    return json.loads((folder.path / "confusion.json").read_text())["test"]


def histograms(folder):
    """The rows of histograms.csv."""
    with open(folder.path / "histograms.csv", newline="") as file:
        return list(csv.DictReader(file))


def data_of(folder):
    data = build_data(folder.result["config"])
    data.setup()
    return data


def by_hand(folder):
    """The confusion matrix of each task: scikit-learn's, of what the weights in best.ckpt predict."""
    module, data = load_run(folder.path), data_of(folder)
    test = data.splits["test"]
    x = test.x.float() / 255 if test.x.dtype == torch.uint8 else test.x
    with torch.no_grad():
        outputs = module.outputs(x)
    return {
        task.name: confusion_matrix(test.targets[task.name], outputs[task.name].argmax(1), labels=range(task.outputs)).tolist()
        for task in data.tasks
        if task.kind == "classification"
    }


def accuracy(matrix):
    return int(np.trace(matrix)) / int(np.sum(matrix))


def measure(folder, *words):
    """`python evaluate.py FOLDER WORDS`."""
    catalogue = Catalogue()
    config = change(catalogue, read_run(catalogue, folder.path), list(words), ON_EVALUATION, "evaluation")
    return evaluate(folder.path, config, words)["metrics"]


# ------------------------------------------------------------------ confusion.json


def test_the_confusion_of_the_tested_weights(tmp_path):
    words = ("max_steps=60", "trainer.val_every_n_steps=6", "optimizer.lr=3.0", "data.test=0.6")
    for seed in np.random.default_rng().choice(10**6, 20, replace=False):
        folder = Folder(tmp_path / str(seed))
        result = folder.train(*words, f"seed={seed}")
        if result["best_step"] < result["steps"]:  # so the last weights are others
            break
    assert result["best_step"] < result["steps"]
    found = confusion(folder)
    assert found == {"": {"classes": [str(number) for number in range(10)], "matrix": by_hand(folder)[""]}}
    assert accuracy(found[""]["matrix"]) == result["metrics"]["test/acc"] < 1
    assert np.sum(found[""]["matrix"]) > 1000  # several batches


def test_several_tasks_with_names_a_regression_and_classes_that_the_test_has_not(folder, tmp_path):
    x, rng = np.random.randn(90, 5), np.random.default_rng()
    letters = np.array(["ä", "b", "c"])
    arrays = {
        "letter": letters[rng.integers(3, size=90)],
        "number": np.r_[np.arange(7), rng.integers(7, size=83)],
        "size": rng.random(90),
    }
    split = {f"{name}_{part}": array[piece] for part, piece in (("train", slice(60)), ("test", slice(60, None)))
             for name, array in {"x": x, **arrays}.items()}  # fmt: skip
    split["number_test"] = split["number_test"] % 5  # 5 and 6 are outputs of the model, but no class of the test
    np.savez(tmp_path / "own.npz", **split)
    words = ("data=npz", f"data.path={tmp_path / 'own.npz'}", "data.target=[letter,number,size]", "+multitask=equal")
    result = folder.train(*words, "max_steps=8")
    found, expected = confusion(folder), by_hand(folder)
    assert found.keys() == {"letter", "number"} == expected.keys()
    assert found["letter"]["classes"] == ["b", "c", "ä"] and found["number"]["classes"] == list("0123456")
    for task, entry in found.items():
        assert entry["matrix"] == expected[task]
        assert accuracy(entry["matrix"]) == result["metrics"][f"test/{task}/acc"]
    assert found["number"]["matrix"][5:] == [[0] * 7] * 2
    assert read(folder.path, Catalogue()).confusion["letter"] == (["b", "c", "ä"], expected["letter"])


def test_predictions_by_another_inference_are_counted_and_evaluating_writes_nothing(folder):
    words = ("+regularizer=dropout", "regularizer.dropout.p=0.6", "+inference=mc_dropout", "inference.samples=3")
    result = folder.train(*words, "max_steps=20", "data.test=0.5")
    module, predicted, labels = load_run(folder.path), [], []
    dropout = [layer for layer in module.model.modules() if isinstance(layer, DROPOUTS)]
    for layer in dropout:
        layer.train()
    split = data_of(folder).splits["test"]
    for block, (x, y) in enumerate(zip(split.x.split(128), split.targets[""].split(128), strict=True)):
        whole = torch.zeros(128, *x.shape[1:])  # masks belong to places in the split, in blocks that are always whole
        whole[: len(x)] = x
        torch.manual_seed(derive_seed(0, "mc_dropout", block))
        with torch.no_grad():
            mean = torch.stack([module.model(whole).softmax(1) for _ in range(3)]).mean(0)
        predicted.append(mean[: len(x)].argmax(1))
        labels.append(y)
    module.eval()
    expected = confusion_matrix(torch.cat(labels), torch.cat(predicted), labels=range(10)).tolist()
    matrix = confusion(folder)[""]["matrix"]
    assert matrix == expected and accuracy(matrix) == result["metrics"]["test/acc"]
    assert matrix != by_hand(folder)[""]

    before = (folder.path / "confusion.json").read_bytes()
    assert measure(folder, "inference.samples=1")["test/acc"] != result["metrics"]["test/acc"]
    measure(folder, "data.batch_size=7")
    assert (folder.path / "confusion.json").read_bytes() == before


@pytest.mark.parametrize(("classes", "there"), [(0, False), (999, True), (1001, False)])
def test_no_matrix_for_a_regression_or_very_many_classes(folder, tmp_path, classes, there):
    x = np.random.randn(2100, 3)
    y = np.arange(2100) % classes if classes else x.sum(1)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    result = folder.train("data=npz", f"data.path={tmp_path / 'own.npz'}", "model=linear", "max_steps=2")
    assert result["status"] == "finished"
    assert (folder.path / "confusion.json").exists() == there == bool(read(folder.path, Catalogue()).confusion)
    if there:
        assert confusion(folder)[""]["matrix"] == by_hand(folder)[""]


def test_a_run_that_goes_on_has_no_old_matrix(folder, folders, with_plugin, extra):
    class Ends(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == 50:
                raise SystemExit

    folder.train("max_epochs=1")
    assert (folder.path / "confusion.json").exists() and (folder.path / "test.json").exists()
    with_plugin(Ends)
    with pytest.raises(SystemExit):
        folder.resume("max_epochs=2")
    assert not (folder.path / "confusion.json").exists() and not (folder.path / "test.json").exists()
    with_plugin()
    folder.resume()
    folders("whole").train("max_epochs=2")
    assert confusion(folder) == confusion(folders("whole"))


# ------------------------------------------------------------------ histograms.csv

LOOKS = ("+diagnostics=gradient_stats", "diagnostics.gradient_stats.every_n_steps=6", "trainer.log_every_n_steps=8")


def dies_at(extra, step):
    class Dies(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == step:
                raise SystemExit

    return Dies


def test_a_histogram_that_waits_to_be_logged_survives(folder, folders, with_plugin, extra):
    """It is recorded in step 6, the state is saved after step 7, and it is logged in step 8; the last one at the end."""

    class Looks(extra):
        option = "looks"

        def after_step(self, module, optimizer):
            if module.steps_done % 6 == 0:
                for name, parameter in module.model.named_parameters():
                    if name.endswith("weight"):
                        module.record_histogram(name, parameter)

    words = ("trainer.log_every_n_steps=8", "trainer.save_every_n_steps=7", "max_steps=30")
    whole = folders("whole")
    with_plugin(Looks)
    whole.train(*words)
    assert [row["step"] for row in histograms(whole)] == [str(step) for step in (8, 16, 24, 30) for _ in range(2)]
    assert all(len(row["counts"].split()) == 64 for row in histograms(whole))
    with_plugin(Looks, lambda: dies_at(extra, 8)())
    with pytest.raises(SystemExit):
        folder.train(*words)
    assert load_checkpoint(folder.path / "checkpoints" / "last.ckpt")["global_step"] == 7
    with_plugin(Looks, lambda: dies_at(extra, 19)())
    with pytest.raises(SystemExit):
        folder.resume()
    path = folder.path / "histograms.csv"
    path.write_bytes(path.read_bytes()[:-20])  # the last row is half a row
    with_plugin(Looks)
    folder.resume()
    assert histograms(folder) == histograms(whole) and folder.rows == whole.rows
    assert path.read_bytes() == (whole.path / "histograms.csv").read_bytes()
    found = read(folder.path, Catalogue()).histograms
    assert len(found) == 2 and all([step for step, *_ in series] == [8, 16, 24, 30] for series in found.values())


def test_a_run_that_starts_over_has_no_rows_of_an_earlier_one(folder):
    folder.train(*LOOKS, "max_steps=8")
    rows = histograms(folder)
    for path in (folder.path / "checkpoints").iterdir():
        path.unlink()
    (folder.path / "result.json").write_text(json.dumps({**folder.result, "status": "running"}))
    folder.resume()
    assert histograms(folder) == rows
    folder.train("max_steps=8", "overwrite=true")  # another run in the same folder
    assert not (folder.path / "histograms.csv").exists()


def test_gradients_that_are_no_numbers_stop_nothing(folder):
    words = ("optimizer.lr=1e38", "+diagnostics=gradient_stats", "diagnostics.gradient_stats.every_n_steps=1")
    result = folder.train(
        *words, "trainer.log_every_n_steps=1", "max_steps=5", "logger=[csv,wandb]", "logger.wandb.mode=offline"
    )
    assert result["status"] == "diverged" and result["metrics"] == {}
    text = (folder.path / "histograms.csv").read_text()
    assert "nan" not in text and "inf" not in text
    sizes = {sum(map(int, row["counts"].split())) for row in histograms(folder)}
    assert len(sizes) > 2  # of two layers: some gradients had fewer finite values than others

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    written = json.loads((folder.path / "result.json").read_text(), parse_constant=refuse)
    assert written["status"] == "diverged" and read(folder.path, Catalogue()).status == "diverged"
    with pytest.raises(RecipeError, match=r"has diverged at step .* and would diverge again.* optimizer\.lr=1e\+37"):
        folder.resume()


# ------------------------------------------------------------------ several processes


@pytest.mark.slow
def test_two_processes_one_without_a_test_sample(folder, tmp_path):
    x, y = np.random.rand(41, 8, 8), np.arange(41) % 3
    np.savez(tmp_path / "own.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    words = ("data=npz", f"data.path={tmp_path / 'own.npz'}", "data.batch_size=8", "logger=[]", "trainer.accelerator=cpu")
    several = ("trainer.devices=2", "trainer.strategy=ddp", "+augmentation=mixup", *LOOKS, "max_steps=9")
    folder.path.mkdir()
    done = command("train.py", *words, *several, f"hydra.run.dir={folder.path}", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    matrix = confusion(folder)[""]["matrix"]
    assert matrix == by_hand(folder)[""] and np.sum(matrix) == 1
    assert accuracy(matrix) == folder.result["metrics"]["test/acc"]
    assert {row["step"] for row in histograms(folder)} == {"1", "6"} and len(histograms(folder)) == 6
    assert {path.name for path in (folder.path / "pictures").iterdir()} == {"gradient_stats.png", "mixup.png"}
