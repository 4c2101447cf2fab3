"""Models and data of a user's own, from a file beside the command: real commands."""

import json
import re
import sys

import pytest
import torch
import yaml

from plugins.errors import RecipeError
from recipes.config import catalogue, own
from recipes.run.predictor import load
from tests.command import command, mistake

MINE = '''
import os
import signal
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

Path("imported").touch()


class Mine(nn.Module):
    """Two layers.

    Args:
        width: units, ≥ 1
    """

    passes = 0

    def __init__(self, shape, outputs, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x):
        Mine.passes += self.training
        if Mine.passes == 13 and "STOP" in os.environ:
            signal.raise_signal(signal.SIGTERM)
        return self.layers(x)


class Waves(Dataset):
    def __init__(self, rate: int):
        self.rate = rate

    def __len__(self):
        return 200

    def __getitem__(self, number):
        return torch.sin((1 + number % 5) * torch.linspace(0, 6, self.rate) + number), number % 5


class Pictures(Waves):
    def __init__(self):
        self.rate = 64

    def __getitem__(self, number):
        x, y = super().__getitem__(number)
        return 2.6 * x.view(1, 8, 8), y
'''
RESTING = """

class Resting(nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.body = nn.Module()
        self.body.frozen = nn.BatchNorm2d(shape[0])
        self.body.requires_grad_(False).eval()
        self.measures = nn.BatchNorm2d(shape[0]).requires_grad_(False)
        self.trained = nn.BatchNorm2d(shape[0]).eval()
        self.head = nn.Linear(64, outputs)

    def forward(self, x):
        return self.head(self.trained(self.measures(self.body.frozen(x))).flatten(1))
"""
MODEL, DATA = "model._target_=mine.Mine", "data._target_=mine.Waves"
SHORT = ("logger=[]", "trainer.progress=false", "trainer.accelerator=cpu", "data.rate=24")


def run(*words, cwd, script="train.py", **environment):
    return command(script, *words, cwd=cwd, forked=True, **environment)


def result(folder):
    return json.loads((folder / "result.json").read_text())


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.fixture
def trained(place):
    done = run(MODEL, DATA, "model.width=8", *SHORT, "max_epochs=1", "hydra.run.dir=run", cwd=place)
    assert done.returncode == 0, done.stderr
    (place / "imported").unlink()
    return place / "run"


def test_a_run_and_what_can_be_done_with_it_once_the_words_are_typed_again(trained):
    place = trained.parent
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"]["_target_"] == "mine.Mine" and config["model"]["width"] == 8
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", config["model"]["_source_"]) and config["data"]["rate"] == 24
    assert result(trained)["choices"]["model"] == ["mine.Mine"]
    test = result(trained)["metrics"]["test/acc"]
    evaluated = run("run", MODEL, DATA, cwd=place, script="evaluate.py")
    assert f"{test:.4f}" in evaluated.stdout and "samples  40: the test split" in evaluated.stdout
    predicted = run("run", "model=mine.Mine", "data=mine.Waves", "output=p.csv", cwd=place, script="predict.py")
    assert "samples  40: the test split" in predicted.stdout and len((place / "p.csv").read_text().splitlines()) == 41
    exported = run("run", MODEL, DATA, "output=weights.safetensors", cwd=place, script="export.py")
    assert exported.returncode == 0 and (place / "weights.safetensors").exists()
    longer = run("resume=run", MODEL, DATA, "max_epochs=2", cwd=place)
    assert longer.returncode == 0 and result(trained)["steps"] == 2 * result(trained)["steps_an_epoch"]
    assert "model.width=8" in result(trained)["command"]  # what was typed again takes no parameter away


@pytest.fixture
def from_python(place, monkeypatch):
    """What a command has of its own, in this process."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(catalogue, "own_options", {})
    monkeypatch.setattr(own, "trusted", set())
    yield
    sys.modules.pop("mine", None)


def test_a_run_from_python(trained, from_python):
    with pytest.raises(RecipeError, match="type it with this command"):
        load("run")
    predictor = load("run", words=["model=mine.Mine", "data=mine.Waves"])
    assert len(predictor.predict_data(elsewhere=False).ids) == 40
    x = torch.randn(3, 24)
    expected = predictor.members[0].module.model(x).softmax(1).detach()
    torch.testing.assert_close(predictor.predict(x).of(), expected)


def test_images_of_any_scale_are_predicted_as_they_were_trained_on(place, from_python):
    done = run("model=linear", "data=mine.Pictures", *SHORT[:3], "max_steps=4", "hydra.run.dir=run", cwd=place)
    assert done.returncode == 0, done.stderr
    predictor = load("run", words=["data=mine.Pictures"])
    expected = predictor.predict_data(elsewhere=False).of()
    split = predictor.members[0].data.splits["test"]
    x = split.between(0, len(split))[0]
    assert x.shape[1:] == (1, 8, 8) and float(x.min()) < -2 and float(x.max()) > 2
    for given in (x, x.double().numpy()):
        torch.testing.assert_close(predictor.predict(given).of(), expected)
    with pytest.raises(RecipeError, match="the input holds 64 values that are NaN or infinite"):
        predictor.predict(torch.full((1, 1, 8, 8), torch.nan))
    with pytest.raises(RecipeError, match=r"was trained on samples of shape \(1, 8, 8\)"):
        predictor.predict(torch.rand(3, 1, 9, 9))


@pytest.mark.parametrize(
    "words",
    [("evaluate.py", "run"), ("predict.py", "run"), ("export.py", "run", "format=safetensors"), ("train.py", "resume=run")],
)
def test_what_a_folder_names_is_not_run(trained, words):
    script, *others = words
    told = run(*others, cwd=trained.parent, script=script)
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 1
    assert "type it with this command: model._target_=mine.Mine data._target_=mine.Waves" in told.stderr
    assert not (trained.parent / "imported").exists()


def test_a_class_that_has_changed_since(trained):
    place = trained.parent
    (place / "mine.py").write_text(MINE + "# another one\n")
    told = run("resume=run", MODEL, DATA, "max_epochs=2", cwd=place)
    assert told.returncode == 2 and "mine.py has changed since (sha256:" in told.stderr
    evaluated = run("run", MODEL, DATA, cwd=place, script="evaluate.py")
    assert evaluated.returncode == 0 and "warning: mine.py has changed since" in evaluated.stderr
    predicted = run("run", MODEL, DATA, cwd=place, script="predict.py")
    assert predicted.returncode == 0 and predicted.stderr.count("warning: mine.py has changed since") == 1
    taught = run(
        MODEL,
        DATA,
        *SHORT,
        "max_steps=2",
        "+distillation=logits",
        "distillation.teacher=run",
        "hydra.run.dir=taught",
        cwd=place,
    )
    assert taught.returncode == 0 and "warning: mine.py has changed since" in taught.stderr
    done = run(MODEL, DATA, "model.width=8", *SHORT, "max_epochs=1", "hydra.run.dir=other", cwd=place)
    assert done.returncode == 0
    compared = run("run", "other", cwd=place, script="compare.py")
    assert (
        compared.returncode == 0 and len(re.findall(r"_source_=sha256:\w+", compared.stdout)) >= 2
    )  # two groups, not two runs of one


def test_a_run_that_is_interrupted_in_an_epoch_becomes_what_it_would_have_been(place):
    words = (MODEL, DATA, "data.workers=1", *SHORT, "max_epochs=4", "+regularizer=dropout", "+augmentation=mixup")
    whole = run(*words, "hydra.run.dir=whole", cwd=place)
    assert whole.returncode == 0, whole.stderr
    stopped = run(*words, "hydra.run.dir=parts", cwd=place, STOP="1")
    assert stopped.returncode == 143 and "go on    python train.py model=mine.Mine data=mine.Waves resume=" in stopped.stdout
    state = result(place / "parts")
    assert state["status"] == "stopped" and state["steps"] % state["steps_an_epoch"] > 0
    going = run("resume=parts", MODEL, DATA, cwd=place)
    assert going.returncode == 0, going.stderr
    first, second = weights(place / "whole"), weights(place / "parts")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    metrics = [{name: value for name, value in result(place / name)["metrics"].items()} for name in ("whole", "parts")]
    assert metrics[0] == metrics[1]


def test_a_sweep_over_a_model_of_ones_own(place):
    words = ("model._target_=mine.Mine,mlp", DATA, "model.width=8", *SHORT, "max_epochs=1", "sweep=sweep")
    done = run("-m", *words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "model=mine.Mine" in done.stdout and "model=mlp" in done.stdout
    again = run("sweep=sweep", cwd=place)
    assert again.returncode == 2 and "type it again: python train.py sweep=sweep" in again.stderr
    typed = run("sweep=sweep", "model._target_=mine.Mine,mlp", DATA, cwd=place)
    assert typed.returncode == 0 and typed.stdout.count("is finished") == 2
    (place / "mine.py").write_text(MINE + "# another one\n")
    other = run("-m", *words, cwd=place)
    assert other.returncode == 1 and "mine.py has changed since" in other.stdout + other.stderr


def test_what_is_frozen_in_evaluation_mode_rests(place):
    (place / "mine.py").write_text(MINE + RESTING)
    words = (
        "model._target_=mine.Resting",
        "data._target_=mine.Pictures",
        *SHORT[:3],
        "max_epochs=2",
        "trainer.val_every_n_steps=1",
    )
    done = run(*words, "hydra.run.dir=run", cwd=place)
    assert done.returncode == 0, done.stderr
    kept = weights(place / "run")
    counted = {name.split(".")[-2]: int(value) for name, value in kept.items() if name.endswith("num_batches_tracked")}
    assert counted["frozen"] == 0 < counted["measures"] == counted["trained"]


def test_two_ranks_equal_one(place):
    words = (MODEL, DATA, *SHORT, "max_epochs=1", "data.batch_size=20")
    two = run(*words, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=two", cwd=place)
    assert two.returncode == 0, two.stderr
    one = run(*words, "hydra.run.dir=one", cwd=place)
    assert one.returncode == 0
    for name, value in weights(place / "one").items():
        torch.testing.assert_close(value, weights(place / "two")[name], rtol=1e-4, atol=1e-6)


def test_what_is_in_the_file_is_told_without_running_it(place):
    helped = run("--help", "model=mine.Mine", cwd=place)
    assert "Two layers." in helped.stdout and re.search(r"model\.width=16\s+units, ≥ 1", helped.stdout)
    for words, said in (
        (("model._target_=mine.Mien",), "mine.py has no class Mien; did you mean mine.Mine?"),
        (("model._target_=mien.Mine",), "no installed module mien; did you mean mine.Mine?"),
        (("model._target_=Mine",), "expected the name of a file and of a class in it"),
        (("model._target_=../mine.py:Mine",), "lies outside of the working folder"),
        ((MODEL, "model.widht=3"), "did you mean model.width?"),
        ((MODEL, "model.width=0"), "model.width must be a whole number ≥ 1"),
        ((MODEL, "model.width=wide"), "model.width must be a whole number"),
        (("model._target_=mine.Waves",), "expected an nn.Module, and mine.Waves is torch.utils.data.Dataset"),
        ((DATA,), "data.rate has no default: type data.rate=VALUE"),
    ):
        assert said in mistake(*words, cwd=place, forked=True)
    assert not (place / "imported").exists()


BROKEN = """
import lightning as L
import torch
from torch import nn
from torch.utils.data import IterableDataset


class NoShape(nn.Module):
    def __init__(self, width=3):
        super().__init__()


class Few(nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.layer = nn.Linear(64, 7)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Raises(Few):
    def __init__(self, shape, outputs, width=3):
        super().__init__(shape, outputs)
        {}["width"]


class Forward(Few):
    def forward(self, x):
        return self.missing(x)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3), 0


class Other:
    pass


class Lit(L.LightningModule):
    def __init__(self, shape, outputs):
        super().__init__()


def function(shape, outputs):
    return Few(shape, outputs)
"""


def test_mistakes_in_the_file(place):
    (place / "broken.py").write_text(BROKEN)
    (place / "fails.py").write_text(
        "from torch import nn\n\nx = 1 / 0\n\n\nclass M(nn.Module):\n    def __init__(self, shape, outputs):\n        pass\n"
    )
    (place / "half.py").write_text("class M(\n")
    (place / "colorsys.py").write_text(BROKEN)
    for words, said in (
        ("model._target_=broken.NoShape", "takes width: add shape and outputs to its __init__"),
        ("model._target_=broken.Few", "expected outputs of shape (samples, 10), got (samples, 7)"),
        ("model._target_=broken.Raises", "cannot be made: broken.py, line 25: KeyError: 'width'"),
        ("model._target_=broken.Forward", "broken.py, line 30: AttributeError: 'Forward' object has no attribute 'missing'"),
        ("model._target_=broken.Lit", "a LightningModule, whose training_step and optimizers would not be used"),
        ("model._target_=broken.function", "is a function, expected a class"),
        ("model._target_=broken.Other", "takes nothing: add shape and outputs"),
        ("data._target_=broken.Stream", "it is an IterableDataset, whose samples cannot be reached by their number"),
        ("data._target_=broken.Other", "expected a Data, a LightningDataModule or a Dataset"),
        ("model._target_=fails.M", "cannot be imported: fails.py, line 3: ZeroDivisionError: division by zero"),
        ("model._target_=half.M", "half.py, line 1: '(' was never closed"),
        ("model._target_=colorsys.Few", "has the name of another module"),
    ):
        assert said in mistake(words, cwd=place, forked=True)


def test_a_class_that_an_option_of_a_typed_config_folder_names(place):
    (place / "conf" / "model").mkdir(parents=True)
    (place / "conf" / "model" / "mine.yaml").write_text("# Mine.\n_target_: mine.Mine\nwidth: 16 # units, ≥ 1\n")
    words = ("model=mine", "model.width=4", DATA, *SHORT, "max_epochs=1", "hydra.run.dir=run")
    done = run("--config-dir", "conf", *words, cwd=place)
    assert done.returncode == 0, done.stderr
    evaluated = run("--config-dir", "conf", "run", DATA, cwd=place, script="evaluate.py")
    assert evaluated.returncode == 0, evaluated.stderr


def test_a_package_beside_the_command(place):
    (place / "nets" / "inner").mkdir(parents=True)
    (place / "nets" / "__init__.py").write_text("from .inner.wide import Wide as Wide\n")
    (place / "nets" / "inner" / "__init__.py").write_text("")
    (place / "nets" / "inner" / "wide.py").write_text("from mine import Mine\n\n\nclass Wide(Mine):\n    pass\n")
    done = run("model._target_=nets.Wide", "model.width=4", DATA, *SHORT, "max_epochs=1", "hydra.run.dir=run", cwd=place)
    assert done.returncode == 0, done.stderr
    assert result(place / "run")["config"]["model"]["width"] == 4
