import numpy as np
import pytest
import timm
import torch

from plugins.base import RecipeError
from plugins.init.framework import FrameworkInit
from plugins.init.kaiming_normal import KaimingNormalInit
from plugins.pretrained import pretrained_of
from plugins.regularizer.spectral_norm import SpectralNorm
from recipes.models.timm import TimmModel
from recipes.run.evaluate import evaluate
from recipes.run.predictor import load
from recipes.run.pretrained import expect_weights_kept, without_weights
from tests.recipes.conftest import run_config

WORDS = ("model=timm", "model.name=test_resnet", "data.batch_size=32")


def kept(folder):
    return torch.load(folder.path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_reads_its_weights_once(folders, tmp_path, capsys):
    """It is told of them; resumed, evaluated and asked to predict it needs them no more; its folder is weights with their inputs."""
    path, whole, half = tmp_path / "weights.pth", folders("whole"), folders("half")
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), path)
    words = [*WORDS, f"model.weights={path}"]
    whole.train(*words, "max_steps=4")
    printed = capsys.readouterr().out
    assert f"model: weights {path}: 75 of 77 tensors of model.name=test_resnet are taken" in printed
    assert "model: the weights are for images of 3 channels, the data has 1" in printed
    assert "preprocessing/pretrained: the weights do not tell which inputs they expect" in printed
    half.train(*words, "max_steps=2")
    path.unlink()
    half.resume("max_steps=4")
    straight, resumed = kept(whole), kept(half)
    assert straight.keys() == resumed.keys() and all(torch.equal(straight[name], resumed[name]) for name in straight)
    again = evaluate(half.path, run_config(half.path), [])["metrics"]
    assert again == pytest.approx({name: value for name, value in half.result["metrics"].items() if "test/" in name})
    x = np.zeros((2, 1, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(load(half.path).predict(x).of(), load(whole.path).predict(x).of())
    model = TimmModel((1, 8, 8), 10, "test_resnet", weights=str(whole.path))
    best = torch.load(whole.path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, best[f"model.model.{name}"]) for name, value in model.state_dict().items())
    assert torch.equal(pretrained_of(model).shift, best["model.shift"])
    assert torch.equal(pretrained_of(model).scale, best["model.scale"])


def test_a_preprocessing_that_is_typed_wins_and_a_line_says_so(folders, capsys):
    first, second = folders("first"), folders("second")
    first.train(*WORDS, "preprocessing=none", "max_steps=1")
    capsys.readouterr()
    second.train(*WORDS, f"model.weights={first.path}", "preprocessing=standardize", "data.split_seed=1", "max_steps=1")
    printed = " ".join(capsys.readouterr().out.split())
    assert "model: preprocessing=standardize was chosen, which prepares inputs otherwise than" in printed
    assert "model: the run that these weights are from was trained on another split of this data: it may know" in printed
    assert kept(second)["model.shift"].any()
    model = TimmModel((1, 8, 8), 10, "test_resnet", weights=str(first.path))
    assert pretrained_of(model).shift.tolist() == [[[0.0]]] and pretrained_of(model).scale.tolist() == [[[1.0]]]


def test_initial_weights_that_would_be_drawn_over_them_are_refused():
    config = {"model": {"weights": "DEFAULT"}}
    with pytest.raises(RecipeError, match="init=kaiming_normal would draw over the weights of model.weights=DEFAULT"):
        expect_weights_kept(config, [KaimingNormalInit()])
    expect_weights_kept(config, [FrameworkInit(), SpectralNorm()])
    expect_weights_kept({"model": {"weights": None}}, [KaimingNormalInit()])


def test_only_models_that_have_weights_are_told_to_leave_them():
    assert without_weights({"model": {"weights": "a"}, "seed": 1}) == {
        "model": {"weights": "a", "load_weights": False},
        "seed": 1,
    }
    assert without_weights({"model": {"width": 3}}) == {"model": {"width": 3}}
