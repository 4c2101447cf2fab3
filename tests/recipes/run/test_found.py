"""The runs that words name, and the samples of a finished one."""

from functools import partial

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.run.build import build_data
from recipes.run.found import OwnSamples, find_runs, held_out_but_known


@pytest.fixture
def study(tmp_path):
    """A sweep's folder of eleven runs, with a figure beside them, and a run elsewhere."""
    for name in (*(f"study/{number}" for number in range(11)), "alone"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "result.json").touch()
    (tmp_path / "study" / "compare.png").touch()
    (tmp_path / "study" / "notes").mkdir()
    return tmp_path


def test_a_pattern_and_a_folder_of_a_sweep_are_its_runs_in_their_order(study):
    runs = [f"{study}/study/{number}" for number in range(11)]
    assert find_runs([f"{study}/study/*"]) == find_runs([f"{study}/study"]) == runs
    assert find_runs([f"{study}/study/1*", f"{study}/alone"]) == [runs[1], runs[10], f"{study}/alone"]


def test_each_counts_once_however_it_is_named(study):
    assert find_runs([f"{study}/alone", f"{study}/study/../alone", f"{study}/al*"]) == [f"{study}/alone"]


def test_a_pattern_that_fits_no_run_is_refused_and_a_folder_is_left_to_who_loads_it(study):
    with pytest.raises(RecipeError, match=r"study/n\* is the name of no run: expected the folder of a run or of a sweep"):
        find_runs([f"{study}/study/n*"])
    assert find_runs([f"{study}/study/notes", f"{study}/nowhere"]) == [f"{study}/study/notes", f"{study}/nowhere"]


def test_a_name_that_looks_like_a_pattern_is_a_folder_where_there_is_one(study):
    (study / "alone").rename(study / "lr=[0.1]")
    assert find_runs([f"{study}/lr=[0.1]"]) == [f"{study}/lr=[0.1]"]


@pytest.mark.parametrize(
    ("words", "told"),
    [({}, ""), ({"split_seed": 1}, "another split"), ({"folds": 5}, "another split"), ({"target": "other"}, "")],
    ids=["the same", "another split", "folds", "other data"],
)
def test_a_run_of_the_same_data_may_know_what_is_held_out_of_another_split(words, told, tmp_path):
    x, labels = torch.arange(400.0).reshape(100, 4), {"y": torch.arange(100) % 2, "other": torch.arange(100) % 3}
    np.savez(tmp_path / "a.npz", x=x, **labels)

    def data(**words):
        found = build_data({"data": {"_target_": "recipes.data.npz.NpzData", "path": str(tmp_path / "a.npz"), **words}})
        found.setup()
        return found

    own, here = data(), data(**words)
    kept = {"data": own.fingerprint, "content": own.content}
    assert told in (line := held_out_but_known(kept, here.fingerprint, here.content)) and bool(line) == bool(told)
    seen = [bool(held_out_but_known({**kept, "phase": {"all_data": value}}, own.fingerprint, own.content)) for value in (0, 1)]
    assert seen == [False, True]
    for odd in ({}, {"content": own.content}, {**kept, "data": 3}, {**kept, "content": None}):  # older, or a stranger's
        assert not held_out_but_known(odd, here.fingerprint, here.content)


def test_the_samples_of_a_run_are_those_it_was_trained_on_and_no_others():
    make = partial(build_data, {"data": {"_target_": "recipes.data.digits.Digits"}})
    data, device = make(), torch.device("cpu")
    data.setup()
    for split in ("train", "val"):
        found = list(OwnSamples(make, {"data": data.fingerprint})(split, device))
        places = torch.arange(len(data.splits[split]))
        if split == "train":  # in a random order, and each time in the same
            places = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
        x, y = data.splits[split].fetch(places)
        assert torch.equal(torch.cat([pair[0] for pair in found]), x) and torch.equal(
            torch.cat([pair[1][""] for pair in found]), y[""]
        )
    with pytest.raises(RecipeError, match="its last phase has trained on them"):
        OwnSamples(make, {"data": data.fingerprint, "phase": {"all_data": True}})("val", device)
    with pytest.raises(RecipeError, match="these data are others: leave out the words of data"):
        OwnSamples(make, {"data": "another"})("val", device)
