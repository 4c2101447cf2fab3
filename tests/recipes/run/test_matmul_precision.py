"""How exactly 32 bits are multiplied is a word of the config, the same for products and convolutions, and stands in the result."""

import json

import pytest
import torch
import yaml

from plugins.base import RecipeError
from recipes.run.process import set_matmul_precision
from tests.recipes.conftest import run_config


@pytest.fixture(autouse=True)
def _restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def in_force():
    return torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("highest", False, False)),
        (["trainer.matmul_precision=high"], ("high", True, True)),
        (["trainer.matmul_precision=medium"], ("medium", True, True)),
    ],
)
def test_full_precision_is_what_a_run_says_it_is(folder, words, expected):
    torch.set_float32_matmul_precision("high")  # whatever was there
    torch.backends.cudnn.allow_tf32 = True
    folder.train(*words, "max_steps=1")
    assert in_force() == expected
    result = json.loads((folder.path / "result.json").read_text())
    assert result["matmul_precision"] == expected[0] == result["config"]["trainer"]["matmul_precision"]


def test_other_words_are_refused():
    with pytest.raises(RecipeError, match="trainer.matmul_precision must be one of highest, high, medium, got 'tf32'"):
        set_matmul_precision("tf32")


def test_a_run_from_before_there_was_a_word_goes_on_as_it_was(folder):
    folder.train("max_steps=1")
    path = folder.path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    del config["trainer"]["matmul_precision"]
    path.write_text(yaml.safe_dump(config))
    assert run_config(folder.path)["trainer"]["matmul_precision"] == "high"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="rounding shows on a GPU")
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_products_and_convolutions_on_a_gpu(precision):
    set_matmul_precision(precision)
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    x, w = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)
    product = (a.cuda() @ b.cuda()).cpu().double() - a.double() @ b.double()
    convolved = torch.conv2d(x.cuda(), w.cuda()).cpu().double() - torch.conv2d(x.double(), w.double())
    for error in (product, convolved):
        assert (float(error.abs().max()) < 1e-3) == (precision == "highest")
