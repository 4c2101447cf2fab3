"""Rows that are split by time."""

import csv
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
from sklearn.model_selection import TimeSeriesSplit

from plugins.base import RecipeError
from recipes.data.columns import Values
from recipes.data.csv import CsvData
from recipes.data.times import forward, latest, times_of


def values_of(cells):
    words = sorted({*cells} - {""})
    return Values(np.array([words.index(cell) if cell else np.nan for cell in cells]), words)


def ranks(cells):
    places, written = times_of(values_of(cells), np.arange(2, 2 + len(cells)), "own.csv: column day")
    return places.tolist(), written


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["10", "9", "9.0", "-1", "1e3"], [2, 1, 1, 0, 3]),
        (["2024-03-01", "2024-02-29", "1969-12-31", "2024-02-29T00:00"], [2, 1, 0, 1]),
        (["2024-03-01 12:00", "2024-03-01T11:59:59.500", "2024-03-01"], [2, 1, 0]),
        (["2024-03-01T12:00:00Z", "2024-03-01T12:30:00+01:00", "2024-03-01T12:00:00+00:00"], [1, 0, 1]),
    ],
)
def test_the_order_of_times(cells, expected):
    places, written = ranks(cells)
    assert places == expected
    assert [written[place] for place in places][-2] in cells and len(written) == 1 + max(expected)


def test_the_order_of_random_moments_is_that_of_their_dates():
    draw = np.random.default_rng()
    moments = [
        datetime(1900, 1, 1) + timedelta(seconds=int(draw.integers(2**33)), microseconds=int(draw.integers(10**6)))
        for _ in range(200)
    ]
    places, written = ranks([moment.isoformat() for moment in moments])
    assert [sorted({*moments}).index(moment) for moment in moments] == places
    assert written == [moment.isoformat() for moment in sorted({*moments})]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1", "", "2"], "own.csv: column day, line 3: the cell is empty: each row must have a time"),
        (["1", "2", "soon"], "own.csv: column day, line 4: soon is no time: write all as numbers, or as ISO dates"),
        (["1", "inf"], "line 3: inf is no time"),
        (["2024-02-30", "2024-02-29"], "line 2: 2024-02-30 is no time"),
        (["29.02.2024", "2024-02-29"], "line 2: 29.02.2024 is no time"),
        (["2024", "2024-02-29"], "line 3: 2024-02-29 is a date, and line 2 holds a number, 2024: write all in one way"),
        (["2024-02-29", "2024-02-29T12:00Z"], "is a date with a zone, and line 2 holds a date, 2024-02-29"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_its_line(cells, message):
    with pytest.raises(RecipeError, match=message):
        ranks(cells)


def cut_at(times):
    """All ways to hold out the latest rows without tearing a time apart, tried one by one."""
    return [chosen for least in sorted({*times.tolist()})[1:] if (chosen := times >= least).any()]


@pytest.mark.parametrize("seed", range(10))
def test_the_latest_rows_are_held_out_and_no_time_is_torn_apart(seed):
    draw = np.random.default_rng(seed)
    times = torch.from_numpy(draw.integers(draw.integers(2, 40), size=50))
    share = float(draw.uniform(0.05, 0.6))
    held_out = torch.zeros(50, dtype=torch.bool)
    held_out[latest(times, share, "test")] = True
    assert any(held_out.equal(way) for way in cut_at(times))
    nearest = min(abs(int(way.sum()) - 50 * share) for way in cut_at(times))
    assert abs(int(held_out.sum()) - 50 * share) == pytest.approx(nearest)


def test_rows_of_one_time_cannot_be_split():
    with pytest.raises(
        RecipeError, match="data.test=0.2 does not split 5 rows of one time: rows of one time of data.time stay"
    ):
        latest(torch.zeros(5, dtype=torch.long), 0.2, "test")


def test_folds_go_forward_as_those_of_scikit_learn():
    times = torch.from_numpy(np.random.default_rng().permutation(60))
    order = times.argsort()
    for fold, (train, test) in enumerate(TimeSeriesSplit(5).split(np.zeros(60))):
        earlier, held_out = forward(times, 5, fold)
        assert earlier.tolist() == sorted(order[train].tolist()) and held_out.tolist() == sorted(order[test].tolist())


@pytest.mark.parametrize("seed", range(10))
def test_folds_of_times_that_stay_together(seed):
    times = torch.from_numpy(np.random.default_rng(seed).integers(12, size=80))
    tested, before = [], None
    for fold in range(4):
        earlier, held_out = forward(times, 4, fold)
        assert times[earlier].max() < times[held_out].min()
        assert fold == 0 or times[earlier].max() == times[before].max()
        before = held_out
        tested += held_out.tolist()
    assert len(tested) == len({*tested}) and int(times[before].max()) == int(times.max())
    with pytest.raises(RecipeError, match=r"data.folds=12 does not cut rows of 1\d different times of data.time"):
        forward(times, 12, 0)


@pytest.fixture
def table(tmp_path):
    """60 rows of 20 days in an order of their own, three a day; the day is not among the inputs."""
    draw = np.random.default_rng(0)
    days = [(datetime(2024, 2, 20) + timedelta(days=int(n) // 3)).date().isoformat() for n in draw.permutation(60)]
    with (tmp_path / "own.csv").open("w", newline="") as file:
        rows = [[row, day, "ab"[row % 2], row // 6] for row, day in enumerate(days)]
        csv.writer(file).writerows([["row", "day", "kind", "who"], *rows])
    return tmp_path / "own.csv", np.array(days, dtype="datetime64[D]")


def set_up(path, **arguments):
    data = CsvData(str(path), target="kind", drop=["who"], time="day", **arguments)
    data.setup()
    return data, {name: split.x[:, 0].long().numpy() for name, split in data.splits.items()}


def test_a_table_is_split_by_its_days(table):
    path, days = table
    data, rows = set_up(path)
    assert {name: len(split) for name, split in rows.items()} == {"train": 42, "val": 6, "test": 12}
    assert days[rows["train"]].max() < days[rows["val"]].min() and days[rows["val"]].max() < days[rows["test"]].min()
    assert "; validation from 2024-03-05, test from 2024-03-07 on; row counts the rows, as an id" in data.splits["train"].remark
    assert [data.ids()[place] for place in data.held_out] == [str(row + 2) for row in rows["test"]]
    assert set_up(path, split_seed=5)[1]["test"].tolist() == rows["test"].tolist()


def test_folds_of_a_table_train_on_earlier_days(table):
    path, days = table
    for fold in range(4):
        _, rows = set_up(path, folds=4, fold=fold)
        assert len(rows["train"]) + len(rows["val"]) == 12 * (fold + 1) and len(rows["test"]) == 12
        assert days[rows["train"]].max() < days[rows["val"]].min() and days[rows["val"]].max() < days[rows["test"]].min()


def test_what_a_split_by_time_cannot_go_with(table):
    path, _ = table
    with pytest.raises(RecipeError, match="tear the groups of data.groups apart: leave one of them out"):
        set_up(path, groups="who")
    with pytest.raises(RecipeError, match="data.time and data.split both say which rows are held out"):
        set_up(path, split="kind")
    with pytest.raises(RecipeError, match="data.inputs must name other columns than data.time, got day"):
        set_up(path, inputs=["day"])


def test_a_trained_run_is_tested_on_other_rows_without_a_time(table, tmp_path):
    path, _ = table
    data, rows = set_up(path)
    other = CsvData(str(path), target="kind", drop=["who"], time="day")
    other.load_state(data.state())
    assert other.setup_test(data.fingerprint, data.content) == "the test split"
    assert other.splits["test"].x[:, 0].long().tolist() == rows["test"].tolist()
    (tmp_path / "other.csv").write_text("row,kind\n1,a\n2,b\n")
    without = CsvData(str(tmp_path / "other.csv"), target="kind", drop=["who"], time="day")
    without.load_state(data.state())
    assert without.setup_test(data.fingerprint, data.content).startswith("all of them")
