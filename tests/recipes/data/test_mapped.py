"""Rows that are taken where a table is mapped are those that the library gives."""

import pickle

import numpy as np
import pytest
import torch

from recipes.data.huggingface import HuggingFaceData
from recipes.data.mapped import mapped

datasets = pytest.importorskip("datasets")
ROWS = 90
SIGNAL = np.random.rand(ROWS, 40, 3).astype(np.float32)
FORMS = {
    "lists": datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
    "lists of one length": datasets.Sequence(datasets.Sequence(datasets.Value("float32"), length=3), length=40),
    "an array": datasets.Array2D((40, 3), "float32"),
}


def stored(folder, form, **further):
    features = datasets.Features({"x": form, "y": datasets.Value("int64")} | further)
    columns = {"x": list(SIGNAL), "y": np.arange(ROWS) % 2} | dict.fromkeys(further, np.random.rand(ROWS))
    with datasets.arrow_writer.ArrowWriter(features=features, path=str(folder / "own.arrow"), writer_batch_size=17) as writer:
        for row in range(ROWS):
            writer.write({name: column[row] for name, column in columns.items()})
        writer.finalize()
    return datasets.Dataset.from_file(str(folder / "own.arrow")).with_format("arrow")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_are_those_that_were_written(tmp_path, form):
    table = stored(tmp_path, form)
    assert table.data.column("x").num_chunks > 2
    column = mapped(table, "x")
    index = np.random.default_rng().integers(ROWS, size=200)
    for _ in range(2):
        assert np.array_equal(column.rows(index), SIGNAL[index])
        column = pickle.loads(pickle.dumps(column))
    assert column.rows(index[:0]).shape == (0, 40, 3)
    found = column.rows(index)
    found[:] = 0  # a copy
    assert np.array_equal(column.rows(index), SIGNAL[index])


def test_parts_and_joined_tables_are_mapped_too(tmp_path):
    table = stored(tmp_path, FORMS["lists"])
    part, both = table.select(range(20, 70)), datasets.concatenate_datasets([table, table]).with_format("arrow")
    assert np.array_equal(mapped(part, "x").rows(np.arange(50)[::-1]), SIGNAL[20:70][::-1])
    assert np.array_equal(mapped(both, "x").rows(np.array([ROWS + 3, 4])), SIGNAL[[3, 4]])


def test_what_is_not_in_place_is_read_by_the_library(tmp_path):
    table = stored(tmp_path, FORMS["lists"], small=datasets.Value("float64"))
    others = [table.shuffle(seed=1), table.select([*range(80), 81, 80])]
    assert [mapped(each.with_format("arrow"), "x") for each in others] == [None, None]
    assert mapped(table, "small") is None
    truth = datasets.Dataset.from_dict({"x": np.random.rand(9, 400) < 0.5}).with_format("arrow")
    assert mapped(truth, "x") is None


@pytest.mark.parametrize("order", [None, np.random.default_rng(0).permutation(ROWS)])
def test_a_data_set_is_the_same_in_whatever_way_it_is_read(tmp_path, order):
    table = stored(tmp_path, FORMS["an array"]).with_format(None)
    data = HuggingFaceData(table if order is None else table.select(order), input=["x"], target="y")
    source, _ = data.load()
    assert len(source.in_place) == (order is None)
    index = torch.randint(ROWS, (50,))
    x, targets = source.fetch(index)
    rows = index if order is None else torch.from_numpy(order)[index]
    (x,) = x.values() if isinstance(x, dict) else (x,)
    assert torch.equal(x, torch.from_numpy(SIGNAL)[rows]) and torch.equal(targets[""], rows % 2)
    half = source[torch.arange(0, ROWS, 2)]
    assert torch.equal(
        half.fetch(torch.tensor([1]))[1][""],
        targets[""].new_tensor([int(rows.new_tensor(range(ROWS) if order is None else order)[2]) % 2]),
    )
