"""The command predict.py: a file with what finished runs predict."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.command import command

X, Y = load_digits(return_X_y=True)
IMAGES = X.reshape(-1, 8, 8).astype("uint8") * 15


def run(script, *words, cwd):
    return command(script, *words, cwd=cwd, forked=True)


def train(folder, *words):
    model = () if any(word.startswith("model=") for word in words) else ("model=linear",)
    words = ("logger=[]", "trainer.accelerator=cpu", "max_steps=30", f"hydra.run.dir={folder}", *model, *words)
    done = run("train.py", *words, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())["metrics"]


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_test_split_as_a_table(tmp_path):
    metrics = train(tmp_path / "run")
    done = run("predict.py", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["samples  360: the test split", "output   predictions.csv"]
    rows = table(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["id", "y", *(f"probability_y_{number}" for number in range(10))]
    right = [int(row["y"]) == Y[int(row["id"])] for row in rows]  # the rows of scikit-learn's digits
    assert np.mean(right) == pytest.approx(metrics["test/acc"], abs=1e-6)
    for row in rows:
        p = [float(row[f"probability_y_{number}"]) for number in range(10)]
        assert sum(p) == pytest.approx(1, abs=1e-6) and int(np.argmax(p)) == int(row["y"])


def test_what_was_predicted_is_told(tmp_path):
    """Of data that has changed since these are all samples, those that were trained on too."""
    rows = [f"{number % 7},{number % 5},{'ab'[number % 2]}" for number in range(60)]
    (tmp_path / "own.csv").write_text("\n".join(["p,q,kind", *rows]))
    train(tmp_path / "run", "data=csv", "data.path=own.csv", "data.target=kind")
    assert "samples  12: the test split" in run("predict.py", "run", cwd=tmp_path).stdout
    (tmp_path / "own.csv").write_text("\n".join(["p,q,kind", *rows, "1,1,a"]))
    told = run("predict.py", "run", cwd=tmp_path).stdout
    assert "samples  61: all of them, other data than the run was trained on" in " ".join(told.split("\n"))


def test_a_folder_of_pictures_without_classes(tmp_path):
    for number, (image, label) in enumerate(zip(IMAGES[:120], Y[:120], strict=True)):
        place = tmp_path / "pictures" / "abcdefghij"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    train(tmp_path / "run", "data=image_folder", f"data.path={tmp_path}/pictures", "data.workers=0")
    new = tmp_path / "new"
    new.mkdir()
    for number in range(3):
        Image.fromarray(IMAGES[120 + number]).save(new / f"{number}.png")
    done = run("predict.py", "run", "data.path=new", "output=new.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "new.csv")
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert {row["y"] for row in rows} <= set("abcdefghij") and "probability_y_j" in rows[0]
    Image.fromarray(np.zeros((9, 9), "uint8")).save(new / "3.png")
    refused = run("predict.py", "run", "data.path=new", cwd=tmp_path)
    assert refused.returncode == 2 and "type data.size=N to resize all" in refused.stderr


def test_numbers_and_class_maps_as_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", x=IMAGES[:200], y=(IMAGES[:200] > 100).astype("int64"))
    train(tmp_path / "maps", "data=npz", "data.path=a.npz", "model=fcn")
    np.savez(tmp_path / "b.npz", x=IMAGES[200:210])
    done = run("predict.py", "maps", "data.path=b.npz", "output=maps.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "maps.npz") as found:
        assert found["probability_y"].shape == (10, 2, 8, 8) and found["ids"].tolist() == [str(number) for number in range(10)]
        assert (found["y"] == found["probability_y"].argmax(1)).all()
    refused = run("predict.py", "maps", "data.path=b.npz", cwd=tmp_path)
    assert refused.returncode == 2 and "type output=predictions.npz" in refused.stderr
    np.savez(tmp_path / "c.npz", x=X[:200].astype("float32"), y=X[:200, :2].astype("float32"))
    train(tmp_path / "numbers", "data=npz", "data.path=c.npz")
    assert run("predict.py", "numbers", cwd=tmp_path).returncode == 0
    assert list(table(tmp_path / "predictions.csv")[0]) == ["id", "y_0", "y_1"]


def test_the_mean_of_several_runs_from_anywhere(tmp_path):
    for seed in range(2):
        train(tmp_path / f"run{seed}", f"seed={seed}")
        assert run("predict.py", f"run{seed}", f"output={seed}.csv", cwd=tmp_path).returncode == 0
    done = run("predict.py", "run0", "run1", "output=both.csv", cwd=tmp_path)
    assert done.returncode == 0 and "the test split, mean of 2 runs" in done.stdout
    first, second, both = (table(tmp_path / name) for name in ("0.csv", "1.csv", "both.csv"))
    for one, other, mean in zip(first, second, both, strict=True):
        for name in (f"probability_y_{number}" for number in range(10)):
            assert float(mean[name]) == pytest.approx((float(one[name]) + float(other[name])) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "expected one run folder or several: python predict.py RUN_FOLDER output=predictions.csv"),
        (("nowhere",), "nowhere is no run"),
        (("run", "output=x.txt"), "output=x.txt: expected a file that ends with .csv or .npz"),
        (("run", "output=none/x.csv"), "output=none/x.csv: expected a file in a folder that there is"),
        (("run", "model=cnn"), "model=cnn: cannot be changed on a prediction; what can: inference, data, trainer"),
        (("run", "trainer.devices=2"), "predict.py predicts on one device: leave out trainer.devices=2"),
        (("run", "data=npz", "data.path=gone.npz"), "data.path must be an npz file"),
        (("run", "--multirun"), "predict.py has no flags but --help, --version and --config-dir"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, words, line):
    if "run" in words:
        train(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    done = run("predict.py", *words, cwd=tmp_path)
    assert done.returncode == 2 and line in done.stderr and done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_help(tmp_path):
    shown = run("predict.py", "--help", cwd=tmp_path).stdout
    assert "python predict.py RUN_FOLDER" in shown and "mc_dropout" in shown and "data.path=FILE" in shown


def test_several_labels_of_a_table(tmp_path):
    rows = [(number / 9, number % 5, int(number % 2), ("no", "yes")[number % 3 == 0]) for number in range(90)]
    lines = ["age,size,ill,old", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    data = ("data=csv", "data.path=own.csv", "data.target=[ill,old]", "data.task=multilabel")
    metrics = train(tmp_path / "run", *data, "loss=bce", "loss.threshold=0.4")
    assert run("predict.py", "run", cwd=tmp_path).returncode == 0
    found = table(tmp_path / "predictions.csv")
    assert list(found[0]) == ["id", "y_ill", "y_old", "probability_y_ill", "probability_y_old"]
    right = []
    for row in found:
        truth = rows[int(row["id"]) - 2]  # a line of the file, whose first one has the names
        for name, there in (("ill", truth[2] == 1), ("old", truth[3] == "yes")):
            assert int(row[f"y_{name}"]) == (float(row[f"probability_y_{name}"]) >= 0.4)
            right.append(int(row[f"y_{name}"]) == there)
    assert np.mean(right) == pytest.approx(metrics["test/acc"], abs=1e-6)
    assert run("predict.py", "run", "output=own.npz", cwd=tmp_path).returncode == 0
    arrays = np.load(tmp_path / "own.npz")
    assert arrays["y"].dtype == bool and arrays["classes_y"].tolist() == ["ill", "old"]
    assert arrays["y"].tolist() == (arrays["probability_y"] >= 0.4).tolist()
    done = run("evaluate.py", "run", cwd=tmp_path)
    assert done.returncode == 0 and f"{metrics['test/acc']:.4f}" in done.stdout
