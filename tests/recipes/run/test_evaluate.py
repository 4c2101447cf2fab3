"""What evaluate.py tests on: the test split of the data that the run was trained on, all of any other data."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from plugins.base import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, change, read_run, shown_otherwise
from recipes.data.loaders import EvaluationLoader
from recipes.engine.checkpoint import load_checkpoint
from recipes.run.build import build_data, load_module
from recipes.run.evaluate import evaluate
from recipes.run.predictor import Predictor, load
from tests.recipes.run.test_limits import files

X, Y = load_digits(return_X_y=True)


def save(path, x=X, y=Y, **arrays):
    np.savez(path, **(arrays or {"x": x.astype("float32"), "y": y}))
    return path


def measure(folder, *words):
    """`python evaluate.py FOLDER WORDS`."""
    config = change(Catalogue(), read_run(Catalogue(), folder.path), list(words), ON_EVALUATION, "evaluation")
    return evaluate(folder.path, config, words)


@pytest.fixture
def trained(folder, tmp_path):
    """A run on a file of a thousand digits."""
    save(tmp_path / "own.npz", X[:1000], Y[:1000])
    folder.train("model=linear", "max_steps=30", "data=npz", f"data.path={tmp_path}/own.npz")
    return folder


def accuracy(folder, x, y):
    """The share that the model of best.ckpt gets right, by the equation."""
    module = load_module(read_run(Catalogue(), folder.path), folder.path / "checkpoints" / "best.ckpt")
    with torch.no_grad():
        outputs = module.model(torch.from_numpy(x.astype("float32")))
    return float((outputs.argmax(1).numpy() == y).mean())


def test_its_own_data_is_tested_on_the_test_split_wherever_it_lies(trained, tmp_path, capsys):
    copy = save(tmp_path / "moved.npz", X[:1000], Y[:1000])
    for words in ((), (f"data.path={copy}",), (f"data.path={tmp_path}/./own.npz", "data.batch_size=8")):
        capsys.readouterr()
        found = measure(trained, *words)
        assert found["metrics"]["test/acc"] == trained.result["metrics"]["test/acc"] and found["samples"] == 200
        assert "samples  200: the test split\n" in capsys.readouterr().out


@pytest.mark.parametrize("count", [797, 1, 2, 11])
def test_all_samples_of_other_data_are_tested(trained, tmp_path, capsys, count):
    """However few these are, and whatever share a split would have held out."""
    x, y = X[1000 : 1000 + count], Y[1000 : 1000 + count]
    other = save(tmp_path / "other.npz", x, y)
    before = files(trained)
    found = measure(trained, f"data.path={other}")
    assert found["samples"] == count and found["metrics"]["test/acc"] == pytest.approx(accuracy(trained, x, y))
    assert f"samples  {count}: all of them, other data than the run was trained on\n" in capsys.readouterr().out
    assert files(trained) == before


def test_samples_of_one_class_can_be_tested(trained, tmp_path):
    x, y = X[1000:][Y[1000:] == 3], Y[1000:][Y[1000:] == 3]
    found = measure(trained, f"data.path={save(tmp_path / 'threes.npz', x, y)}")
    assert found["samples"] == len(y) and found["metrics"]["test/acc"] == pytest.approx(accuracy(trained, x, y))


def test_of_other_data_with_a_test_split_that_is_tested(trained, tmp_path, capsys):
    arrays = {"x_train": X[:900].astype("float32"), "y_train": Y[:900], "x_test": X[900:].astype("float32"), "y_test": Y[900:]}
    found = measure(trained, f"data.path={save(tmp_path / 'split.npz', **arrays)}")
    assert found["samples"] == 897 and found["metrics"]["test/acc"] == pytest.approx(accuracy(trained, X[900:], Y[900:]))
    assert "samples  897: the test split of other data\n" in capsys.readouterr().out


def test_data_of_another_option_is_other_data(folder, tmp_path):
    images = (X.reshape(-1, 8, 8) / 16).astype("float32")
    folder.train("model=linear", "max_steps=10")
    found = measure(folder, "data=npz", f"data.path={save(tmp_path / 'x.npz', images[:50], Y[:50])}")
    assert found["samples"] == 50


def test_a_file_that_was_changed_under_its_name_is_other_data(trained, tmp_path, capsys):
    save(tmp_path / "own.npz", X[1000:], Y[1000:])
    assert measure(trained)["samples"] == 797 and "other data than the run was trained on" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["data.split_seed=1", "data.test=0.5", "data.validation=0.3"])
def test_its_own_data_split_in_another_way_is_refused_under_any_name(trained, tmp_path, word):
    copy = save(tmp_path / "copy.npz", X[:1000], Y[:1000])
    with pytest.raises(RecipeError, match="split in another way") as error:
        measure(trained, f"data.path={copy}", word)
    assert "\n" not in str(error.value)


def test_runs_of_older_versions_are_evaluated(trained, tmp_path, capsys):
    """Of which the checkpoint has a hash of the splits only, or none."""
    path = trained.path / "checkpoints" / "best.ckpt"
    other = save(tmp_path / "other.npz", X[1000:], Y[1000:])
    tiny = save(tmp_path / "tiny.npz", X[1000:1003], Y[1000:1003])
    state = load_checkpoint(path)
    del state["recipe"]["content"]
    torch.save(state, path)
    assert [measure(trained, *words)["samples"] for words in ((), (f"data.path={other}",), (f"data.path={tiny}",))] == [
        200,
        797,
        3,
    ]
    del state["recipe"]["data"]
    torch.save(state, path)
    assert [measure(trained, *words)["samples"] for words in ((), (f"data.path={other}",))] == [200, 797]
    assert "the run does not tell what it was trained on" in capsys.readouterr().out


def test_the_content_is_that_of_all_samples_however_they_are_split(tmp_path):
    def content(path, **words):
        data = build_data({"data": {"_target_": "recipes.data.npz.NpzData", "path": str(path), **words}})
        data.setup()
        assert sum(map(len, data.splits.values())) > 0 and len(EvaluationLoader(data.splits["test"])) > 0
        return data.content

    first = content(save(tmp_path / "a.npz"))
    assert first == content(save(tmp_path / "b.npz"), split_seed=3, test=0.5, validation=0.4, batch_size=7)
    changed = Y.copy()
    changed[5] = (changed[5] + 1) % 10
    pixel = X.copy()
    pixel[7, 3] += 1
    others = [save(tmp_path / "c.npz", X, changed), save(tmp_path / "d.npz", pixel), save(tmp_path / "e.npz", X[::-1], Y[::-1])]
    assert len({first, *map(content, others)}) == 4


def numbers(path, columns, seed=0):
    x = np.random.default_rng(seed).normal(size=(40, 5)).astype("float32")
    return save(path, x=x, y=(x[:, :3] + seed)[:, :columns])


@pytest.mark.parametrize("words", [(), ("loss=quantile",)])
def test_other_data_with_fewer_numbers_is_one_line(folder, tmp_path, words):
    path = numbers(tmp_path / "own.npz", 3)
    folder.train("model=linear", "max_steps=2", "data=npz", f"data.path={path}", "data.batch_size=8", *words)
    with pytest.raises(RecipeError, match="the run was trained on 3 numbers.*, the data has a number") as error:
        measure(folder, f"data.path={numbers(tmp_path / 'other.npz', 1, 1)}")
    assert "\n" not in str(error.value)
    assert measure(folder, f"data.path={numbers(tmp_path / 'more.npz', 3, 1)}")["samples"] == 40


def pictures(path, shape):
    for number in range(12):
        (path / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{number % 2}" / f"{number}.png")
    return path


def test_grey_images_for_a_run_on_colours_are_read_as_such_by_a_word(folder, tmp_path):
    colours, grey = pictures(tmp_path / "colours", (8, 8, 3)), pictures(tmp_path / "grey", (8, 8))
    folder.train(
        "model=linear", "max_steps=2", "data=image_folder", f"data.path={colours}", "data.batch_size=4", "data.workers=0"
    )
    for ask in (lambda: measure(folder, f"data.path={grey}"), lambda: load(folder.path).predict(grey)):
        with pytest.raises(RecipeError, match=r"shape \(3, 8, 8\), the data has \(1, 8, 8\): type data.channels=3$"):
            ask()
    with pytest.raises(RecipeError, match=r"the data has \(1, 8, 8\)$"):  # an array is no file
        load(folder.path).predict(np.zeros((2, 8, 8), "uint8"))
    assert measure(folder, f"data.path={grey}", "data.channels=3")["samples"] == 12


def test_its_own_data_shown_in_another_way_is_refused(folder, tmp_path, capsys):
    """Whatever the words that make other samples of it: most of these were trained on."""
    path, other = pictures(tmp_path / "own", (8, 12, 3)), pictures(tmp_path / "other", (12, 8, 3))
    words = ("data=image_folder", "data.workers=0", "data.batch_size=4")
    folder.train("model=linear", "max_steps=2", f"data.path={path}", "data.size=8", *words)
    asked = (
        ["data.aspect=crop"],
        ["data.aspect=pad", f"data.path={path}/../own"],
        [*words[:2], f"data.path={path}", "data.channels=1"],
    )
    for changes, named in zip(asked, ("data.aspect", "data.aspect", "data.channels, data.size"), strict=True):
        for ask in (lambda words=changes: measure(folder, *words), lambda words=changes: in_place(folder, words)):
            with pytest.raises(
                RecipeError, match=f"the run was trained on, with another {named}: none of these samples was held"
            ) as error:
                ask()
            assert "\n" not in str(error.value)
    assert measure(folder, "data.eval_batch_size=3", "data.in_memory=false", "data.workers=1")["which"] == "the test split"
    assert measure(folder, "data.aspect=crop", f"data.path={other}")["samples"] == 12
    for number in range(3):  # a split of its own
        (path / "test" / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        (path / f"{number % 2}" / f"{number}.png").rename(path / "test" / f"{number % 2}" / f"{number}.png")
    (path / "train").mkdir()
    for name in "01":
        (path / name).rename(path / "train" / name)
    assert measure(folder, "data.aspect=crop")["which"] == "the test split of other data"


def in_place(folder, words):
    """`python predict.py FOLDER WORDS`, of words that name no other data."""
    return Predictor([folder.path], words).predict_data(elsewhere=False)


def test_a_place_by_any_name_makes_data_of_ones_own_other_data(tmp_path):
    own = {"_target_": "mine.Waves", "_source_": "sha256:1", "file": str(tmp_path), "noise": 0.1, "batch_size": 4}
    assert shown_otherwise(own, {**own, "_source_": "sha256:2", "batch_size": 8}) == []
    assert shown_otherwise(own, {**own, "noise": 0.5, "file": f"{tmp_path}/."}) == ["noise"]
    assert shown_otherwise(own, {**own, "noise": 0.5, "file": str(tmp_path.parent)}) == []
