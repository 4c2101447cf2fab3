"""Where weights come from, and that nothing in a file is run or taken on trust."""

import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from plugins.base import RecipeError
from recipes.models.stored import place_of, read


def network(channels=3, outputs=4):
    return nn.Sequential(
        nn.Conv2d(channels, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, outputs)
    )


@pytest.mark.parametrize("ending", [".pth", ".pt", ".ckpt", ".bin", ".safetensors"])
def test_files_are_read(tmp_path, ending):
    state, path = network().state_dict(), tmp_path / f"weights{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    found = read(path).tensors
    assert found.keys() == state.keys() and all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module.", "model.model."])
@pytest.mark.parametrize("below", [None, "state_dict", "model", "model_state_dict"])
def test_names_are_found_behind_what_stands_in_front(tmp_path, prefix, below):
    state = network().state_dict()
    saved = {f"{prefix}{name}": value for name, value in state.items()}
    torch.save(saved if below is None else {below: saved, "epoch": 3}, tmp_path / "a.pth")
    found, front = read(tmp_path / "a.pth").named_as(state)
    assert front == prefix and found.keys() == state.keys()


class Harm:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_is_executed(tmp_path, capsys):
    torch.save({"weight": torch.ones(2), "x": Harm()}, tmp_path / "a.pth")
    with pytest.raises(RecipeError, match="cannot be read: expected a state_dict of tensors"):
        read(tmp_path / "a.pth")
    assert capsys.readouterr().out == ""


def test_what_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as whole, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(RecipeError, match="its parts are compressed"):
        read(tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds no weights: expected a state_dict, tensors by name"),
        ({"epoch": 3}, "holds no weights"),
        (None, "is not there: give the folder of a run"),
        (b"no weights", "cannot be read"),
    ],
)
def test_what_holds_no_weights(tmp_path, content, message):
    path = tmp_path / "a.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(RecipeError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RecipeError, match="is no run: give the folder of a run"):
        read(tmp_path)


def test_a_run_is_one_that_has_validated_and_holds_no_links(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RecipeError, match="has not validated yet; type python train.py"):
        read(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save(network().state_dict(), tmp_path / "elsewhere.ckpt")
    (tmp_path / "checkpoints" / "best.ckpt").symlink_to(tmp_path / "elsewhere.ckpt")
    with pytest.raises(RecipeError, match="a link"):
        read(tmp_path)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_typed_link_is_followed_and_says_what_it_is(tmp_path, ending):
    state = network().state_dict()
    save_file(state, tmp_path / "blob") if ending == ".safetensors" else torch.save(state, tmp_path / "blob")
    (tmp_path / f"weights{ending}").symlink_to(tmp_path / "blob")
    assert read(tmp_path / f"weights{ending}").tensors.keys() == state.keys()


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_what_is_no_weights_is_one_line(name, tmp_path, capsys):
    file = tmp_path / name
    for content in (b"", b"text", pickle.dumps(Harm())):
        file.write_bytes(content)
        with pytest.raises(RecipeError, match="init.folder=.*cannot be read") as told:
            read(file, "init.folder")
        assert "\n" not in str(told.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("word", "path"), [("a.pth", True), ("runs/a", True), ("DEFAULT", False), ("a1_in1k", False)])
def test_what_is_a_place(word, path):
    assert (place_of(word) is not None) is path
