"""Where weights come from, and that nothing in a file is run or taken on trust."""

import pickle

import pytest
import torch
from torch import nn

from plugins.base import RecipeError
from recipes.run.weights import best_checkpoint, load_weights


def tensors():
    return nn.Linear(3, 2).state_dict()


@pytest.mark.parametrize("inside", [None, "state_dict", "model", "model_state_dict"])
def test_a_state_dict_alone_or_beside_other_things(inside, tmp_path):
    kept = tensors()
    torch.save(kept if inside is None else {inside: kept, "epoch": 3}, tmp_path / "weights.pth")
    found = load_weights(tmp_path / "weights.pth")
    assert found.keys() == kept.keys() and all(torch.equal(found[name], value) for name, value in kept.items())


def test_safetensors(tmp_path):
    save = pytest.importorskip("safetensors.torch").save_file
    kept = tensors()
    save(kept, tmp_path / "weights.safetensors")
    found = load_weights(tmp_path / "weights.safetensors")
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def test_a_typed_link_is_followed(tmp_path):
    torch.save(tensors(), tmp_path / "blob")
    (tmp_path / "weights.pt").symlink_to(tmp_path / "blob")
    assert load_weights(tmp_path / "weights.pt").keys() == tensors().keys()


class Hostile:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_what_is_no_weights_is_one_line(name, tmp_path, capsys):
    file = tmp_path / name
    for content in (b"", b"text", pickle.dumps(Hostile())):
        file.write_bytes(content)
        with pytest.raises(RecipeError, match="cannot be loaded") as told:
            load_weights(file)
        assert "\n" not in str(told.value)
    for other in (Hostile(), [1, 2], {"a": 3}, {}, {"a": torch.ones(2).to_sparse()}):
        torch.save(other, tmp_path / "other.pt")
        with pytest.raises(RecipeError, match="cannot be (loaded|started from)") as told:
            load_weights(tmp_path / "other.pt")
        assert "\n" not in str(told.value)
    assert "run" not in capsys.readouterr().out.split()


def test_a_folder_is_a_run_that_has_validated(tmp_path):
    with pytest.raises(RecipeError, match="is no run: give the folder of a run"):
        load_weights(tmp_path)
    (tmp_path / "config.yaml").touch()
    for ask in (load_weights, best_checkpoint):
        with pytest.raises(RecipeError, match="has not validated yet; type python train.py"):
            ask(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save(tensors(), tmp_path / "elsewhere.ckpt")
    (tmp_path / "checkpoints" / "best.ckpt").symlink_to(tmp_path / "elsewhere.ckpt")
    with pytest.raises(RecipeError, match="a link"):
        load_weights(tmp_path)
