import csv
import io
import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes

from plugins.base import RecipeError
from recipes.data.csv import CsvData
from recipes.run.predictor import Predictor
from tests.command import command, mistake, run_folder

TOWNS = ("ulm", "bonn", "kiel")


def write(path, names, rows, separator=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([names, *rows])
    return path


@pytest.fixture
def table(tmp_path):
    """Writes a table of 60 rows: a number, a town, a number with holes, a patient, a part and two targets; cells of it changed."""

    def make(*changes, rows=60, name="own.csv", without=()):
        draw = np.random.default_rng(0)
        parts = ["train"] * 4 + ["val", "test"]
        columns = {
            "age": [f"{number:.3f}" for number in draw.normal(40, 9, rows)],
            "town": [TOWNS[number % 3] for number in range(rows)],
            "bmi": ["NA" if number % 7 == 3 else f"{number / 4}" for number in range(rows)],
            "patient": [str(number // 4) for number in range(rows)],
            "part": [parts[number // 4 % 6] for number in range(rows)],
            "ill": [("no", "yes")[number % 2] for number in range(rows)],
            "cost": [f"{number:.2f}" for number in draw.normal(100, 9, rows)],
        }
        for column, row, value in changes:
            columns[column][row] = value
        names = [column for column in columns if column not in without]
        return write(tmp_path / name, names, zip(*(columns[column] for column in names), strict=True))

    return make


def data_of(path, setup=True, **arguments):
    arguments = {"target": "ill", "drop": ["cost", "patient", "part"], "impute": "median"} | arguments
    data = CsvData(str(path), **arguments)
    if setup:
        data.setup()
    return data


def loaded(path, state, **arguments):
    data = data_of(path, setup=False, **arguments)
    data.load_state(state)
    return data


def lines_of(data):
    """The lines of the rows in each split."""
    train, _ = data.load()
    train, test, _ = data._divide(train, data.test, "test")
    train, validation, _ = data._divide(train, data.validation, "validation")
    return {name: rows.lines.tolist() for name, rows in {"train": train, "val": validation, "test": test}.items()}


def test_numbers_come_first_then_categories(table):
    path = table()
    data = data_of(path)
    rows = list(csv.DictReader(path.open()))
    places = lines_of(data)
    assert sorted(line for lines in places.values() for line in lines) == list(range(2, 62))
    train = [rows[line - 2] for line in places["train"]]
    middle = np.median([float(row["bmi"]) for row in train if row["bmi"] != "NA"])
    for name, lines in places.items():
        chosen = [rows[line - 2] for line in lines]
        expected = [
            [
                float(row["age"]),
                middle if row["bmi"] == "NA" else float(row["bmi"]),
                *(row["town"] == town for town in sorted(TOWNS)),
            ]
            for row in chosen
        ]
        np.testing.assert_allclose(data.splits[name].x, np.array(expected, dtype=np.float32), rtol=1e-6)
        assert data.splits[name].targets[""].tolist() == [row["ill"] == "yes" for row in chosen]
    assert data.shape == (5,) and data.class_names == {"": ("no", "yes")}
    assert [(task.kind, task.outputs, task.names) for task in data.tasks] == [("classification", 2, ("no", "yes"))]
    assert (
        data.splits["train"].remark == "own.csv: 2 numeric and 1 categorical columns (5 inputs), 60 rows; target ill: 2 classes"
    )
    assert data.splits["train"].to(torch.device("meta")).remark == data.splits["train"].remark
    assert data.ids() == [str(line) for line in range(2, 62)]
    assert [data.ids()[place] for place in data.held_out] == [str(line) for line in places["test"]]


@pytest.mark.parametrize("impute", ["mean", "median", "most_frequent"])
def test_nothing_is_learned_of_rows_that_are_held_out(table, impute):
    data = data_of(table(), impute=impute)
    changes = [
        (name, line - 2, value)
        for split in ("val", "test")
        for line in lines_of(data)[split]
        for name, value in (("bmi", "1e6"), ("town", "rom"))
    ]
    changed = data_of(table(*changes), impute=impute, unseen="ignore")
    assert changed.state() == data.state()
    assert torch.equal(changed.splits["train"].x, data.splits["train"].x)
    assert changed.splits["test"].x[:, 2:].sum() == 0
    with pytest.raises(RecipeError, match=r"own.csv: column town, line \d+: no training row holds rom; data.unseen=ignore"):
        data_of(table(*changes), impute=impute)
    line = lines_of(data)["train"][0]
    assert data_of(table(("bmi", line - 2, "1e6")), impute=impute).state() != data.state() or impute != "mean"


@pytest.mark.parametrize(("rows", "told"), [(30, True), (20, False)])
def test_an_id_of_numbers_is_told(tmp_path, rows, told):
    numbers = list(range(1, rows + 1))
    for ids in (numbers, np.random.default_rng(0).permutation(numbers).tolist()):
        path = write(tmp_path / "own.csv", ["Id", "size", "ill"], [(id, id % 7 / 4, "ny"[id > rows / 2]) for id in ids])
        remark = data_of(path, drop=[]).splits["train"].remark
        if told and ids is numbers:
            assert remark.endswith("; Id counts the rows, as an id: 'data.drop=[Id]' leaves it out")
        else:
            assert "counts" not in remark


def test_which_columns_are_inputs(table):
    path = table()
    assert [each.name for each in data_of(path, inputs=["bmi", "age"], drop=[])._columns] == ["age", "bmi"]
    assert [each.name for each in data_of(path, inputs="town")._columns] == ["town"]
    data = data_of(path, drop=["cost", "part"], categorical=["patient"], unseen="ignore")
    assert {each.name: each.kind for each in data._columns}["patient"] == "categorical"
    several = data_of(path, target=["cost", "ill"], drop=["part"])
    assert [(task.name, task.kind, task.outputs) for task in several.tasks] == [
        ("cost", "regression", 1),
        ("ill", "classification", 2),
    ]
    assert several.splits["train"].targets["cost"].shape == (len(several.splits["train"]), 1)
    assert "targets cost: a regression (data.task=classification for classes), ill: 2 classes" in several.splits["train"].remark


@pytest.mark.parametrize(
    ("cells", "task", "kind", "names"),
    [
        (["3", "5", "8"], None, "classification", ("3", "5", "8")),
        (["10", "9.0", "-1"], None, "classification", ("-1", "9", "10")),
        (["b", "a", "10"], None, "classification", ("10", "a", "b")),
        ([str(number) for number in range(20)], None, "regression", ()),  # too few rows for each
        ([str(number) for number in range(12)], None, "regression", ()),
        ([str(number) for number in range(11)], None, "classification", tuple(map(str, range(11)))),
        (["1", "2", "2.5"], None, "regression", ()),
        (["0", "1"], "regression", "regression", ()),
        ([str(number) for number in range(20)], "classification", "classification", tuple(map(str, range(20)))),
    ],
)
def test_what_a_target_is(table, cells, task, kind, names):
    path = table(*(("ill", row, cells[row % len(cells)]) for row in range(60)))
    data = data_of(path, task=task, validation=0.4)
    assert (data.tasks[0].kind, data.tasks[0].names) == (kind, names)
    given = [line[5] for line in csv.reader(path.open())][1:]
    for name, lines in lines_of(data).items():
        target = data.splits[name].targets[""]
        found = [float(names[each]) if cells[0] != "b" else names[each] for each in target] if names else target[:, 0].tolist()
        assert found == [given[line - 2] if cells[0] == "b" else float(given[line - 2]) for line in lines]
    assert ("(data.task=" in data.splits["train"].remark) == (task is None and cells[0] != "b")


def test_a_table_of_many_classes_has_20_at_most(table):
    path = table(*(("ill", row, str(row % 21)) for row in range(200)), rows=200)
    assert data_of(path).tasks[0].kind == "regression"


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_shared(table, seed):
    data = data_of(table(), groups="patient", drop=["cost", "part"], split_seed=seed)
    groups = [{(line - 2) // 4 for line in lines} for lines in lines_of(data).values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 15
    assert all(groups)
    assert "patient" not in [each.name for each in data._columns]


@pytest.mark.parametrize("groups", ["patient", None])
@pytest.mark.parametrize("split", ["part", None])
def test_folds_hold_out_each_row_once(table, groups, split):
    path = table(*(("part", row, "train") for row in range(60) if row // 4 % 6 == 5))
    held_out = []
    for fold in range(5):
        data = data_of(path, groups=groups, split=split, folds=5, fold=fold, drop=["cost"], unseen="ignore")
        held_out.append({int(data.ids()[place]) - 2 for place in data.held_out})
        assert sum(map(len, data.splits.values())) == 60
    free = {row for row in range(60) if split is None or row // 4 % 6 != 4}
    assert set.union(*held_out) == free and sum(map(len, held_out)) == len(free)
    if groups:
        assert sum(len({row // 4 for row in rows}) for rows in held_out) == len({row // 4 for row in free})
        with pytest.raises(RecipeError, match="data.folds=16 does not cut 15 groups of data.groups: at most 15"):
            data_of(table(), groups=groups, folds=16)


def test_a_column_says_the_split(table):
    path = table(("part", 0, "Train"), ("part", 16, "validation"))
    data = data_of(path, split="part", drop=["cost", "patient"])
    parts = [line[4] for line in csv.reader(path.open())][1:]
    ages = np.array([float(line[0]) for line in list(csv.reader(path.open()))[1:]], dtype=np.float32)
    for name, words in {"train": ("train", "Train"), "val": ("val", "validation"), "test": ("test",)}.items():
        rows = [row for row, part in enumerate(parts) if part in words]
        np.testing.assert_allclose(data.splits[name].x[:, 0], ages[rows], rtol=1e-6)
        if name == "test":
            assert data.ids() == [str(row + 2) for row in rows] and data.held_out is None


@pytest.mark.parametrize("lacking", [{"val"}, {"test"}, {"val", "test"}])
def test_what_the_column_does_not_say_is_drawn_from_the_training_rows(table, lacking):
    parts = {row: part for row, part in enumerate((["train"] * 4 + ["val", "test"])[row // 4 % 6] for row in range(60))}
    path = table(*(("part", row, "train") for row, part in parts.items() if part in lacking))
    for groups in (None, "patient"):
        data = data_of(path, split="part", groups=groups, drop=["cost"] if groups else ["cost", "patient"])
        sizes = {name: len(split) for name, split in data.splits.items()}
        assert sum(sizes.values()) == 60 and all(sizes.values())
        for part in {"val", "test"} - lacking:
            assert sizes[part] == sum(each == part for each in parts.values())
        if "test" in lacking and "val" not in lacking:
            assert not {int(data.ids()[place]) - 2 for place in data.held_out} & {
                row for row, part in parts.items() if part == "val"
            }


def test_fewer_training_rows_are_what_is_learned_of(table):
    path = table()
    few, all_rows = data_of(path, train_samples=12), data_of(path)
    assert len(few.splits["train"]) == 12 and torch.equal(few.splits["test"].targets[""], all_rows.splits["test"].targets[""])
    assert few.state() != all_rows.state()


def test_another_file_is_read_by_what_was_learned(table):
    data = data_of(table())
    file = io.BytesIO()
    torch.save(data.state(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state == data.state()
    other = table(
        ("town", 0, "kiel"), ("town", 2, "kiel"), ("bmi", 0, ""), rows=6, name="other.csv", without=("ill", "part", "cost")
    )
    found = loaded(other, state)
    x = found.load_inputs()
    assert x.labels == {} and found.ids() == ["2", "3", "4", "5", "6", "7"]
    own = data_of(other.with_name("own.csv"), setup=False)
    own.load_state(state)
    whole = own.load_inputs().x
    np.testing.assert_array_equal(x.x[1, :2], whole[1, :2])  # what other rows of a file hold changes nothing
    assert x.x[0, 1] == state["columns"][2]["fill"] and x.x[0, 2:].tolist() == [0, 1, 0]
    order = table(rows=6, name="order.csv")
    names, *rows = csv.reader(order.open())
    write(order, [*names[::-1], "more"], [[*row[::-1], "?"] for row in rows])
    np.testing.assert_array_equal(loaded(order, state).load_inputs().x, whole[:6])


def test_a_test_on_another_file(table):
    data = data_of(table(), split="part", groups="patient", drop=["cost"])
    again = loaded(table(), data.state(), split="part", groups="patient", drop=["cost"])
    assert again.setup_test(data.fingerprint, data.content) == "the test split"
    assert torch.equal(again.splits["test"].x, data.splits["test"].x)
    other = table(("ill", 1, "no"), ("ill", 3, "no"), rows=4, name="other.csv", without=("part", "patient"))
    elsewhere = loaded(other, data.state(), split="part", groups="patient")
    assert "other data" in elsewhere.setup_test(data.fingerprint, data.content)
    assert elsewhere.splits["test"].targets[""].tolist() == [0, 0, 0, 0] and elsewhere.tasks[0].outputs == 2
    with pytest.raises(RecipeError, match="split in another way"):
        loaded(table(), data.state(), groups="patient", drop=["cost", "part"]).setup_test(data.fingerprint, data.content)


def test_words_that_were_renamed_are_other_data(table):
    first = data_of(table())
    renamed = data_of(table(*(("town", row, "köln") for row in range(2, 60, 3))))
    assert torch.equal(first.splits["train"].x.sort(1).values, renamed.splits["train"].x.sort(1).values)
    assert first.content != renamed.content
    assert first.content == data_of(table()).content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": ("age", "bmi")}, "other.csv lacks inputs that the run was trained on: age, bmi"),
        ({"changes": [("age", 1, "old")]}, "other.csv: column age, line 3: old is no number"),
        ({"changes": [("town", 1, "rom")]}, "other.csv: column town, line 3: no training row holds rom"),
        (
            {"changes": [("ill", 2, "perhaps")]},
            "column ill, line 4: the label perhaps is none of those that were trained on: no, yes",
        ),
        ({"changes": [("ill", 2, "NA")]}, "column ill, line 4: the target has no value"),
        ({"without": ("ill",)}, "data.target: .*other.csv has no column ill"),
    ],
)
def test_another_file_that_does_not_fit_is_one_line(table, change, message):
    state = data_of(table()).state()
    path = table(*change.get("changes", ()), rows=6, name="other.csv", without=change.get("without", ()))
    with pytest.raises(RecipeError, match=message) as error:
        loaded(path, state).setup_test("", None)
    assert "\n" not in str(error.value)


def test_a_state_of_another_kind_is_refused(table):
    data, state = data_of(table(), setup=False), data_of(table()).state()
    with pytest.raises(RecipeError, match="load_state.. comes first"):
        data.load_inputs()
    data.load_state({})
    assert data.state() == {}
    with pytest.raises(RecipeError, match="knows nothing of those of data=csv"):
        data.setup_test("", "of another")
    for broken in ({"columns": 3, "targets": []}, {"classes": ["a"]}, {**state, "targets": [{"name": 1}]}):
        with pytest.raises(RecipeError, match="nothing that data=csv has learned"):
            data.load_state(broken)
    with pytest.raises(RecipeError, match="data.target must be ill, which the run was trained to predict, got cost"):
        loaded(table(), state, target="cost")


ALL_ROWS = range(60)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            [],
            {"impute": None},
            r"own.csv: column bmi has 9 holes in 60 rows .lines 5, 12, 19 and 6 more.: .*data.drop=\[cost,patient,part,bmi\].*; where NA is no hole, name what is one: data.missing=",
        ),
        ([("age", 0, ""), ("town", 1, "?")], {"impute": None}, "column age has 1 holes .*line 2. and so do 2 more columns"),
        ([], {"target": "il"}, "data.target: .*own.csv has no column il: did you mean ill?"),
        ([], {"target": "zzz"}, "no column zzz: there is age, town, bmi"),
        ([], {"drop": ["Cost"]}, "data.drop: .* no column Cost: did you mean cost?"),
        ([], {"groups": "patients"}, "data.groups: .*did you mean patient?"),
        ([], {"split": "parts"}, "data.split: .*did you mean part?"),
        ([], {"drop": ["ill"]}, "data.drop must name other columns than data.target, got ill"),
        ([], {"inputs": ["ill", "age"]}, "data.inputs must name other columns than data.target, got ill"),
        ([], {"inputs": ["patient"], "groups": "patient"}, "data.inputs must name other columns than data.groups"),
        ([], {"inputs": ["cost"]}, "data.inputs and data.drop both name the column cost"),
        ([], {"groups": "ill"}, "data.groups must be another column than data.target"),
        ([], {"categorical": ["cost"]}, "data.categorical must name inputs, got cost"),
        ([], {"drop": ["age", "town", "bmi", "cost", "patient", "part"]}, "own.csv has no column to predict ill from"),
        ([("ill", 3, "")], {}, r"column ill, the target, has no value in 1 of 60 rows .line 5.: leave these rows out"),
        ([("ill", row, "yes") for row in ALL_ROWS], {}, "column ill, the target: all 60 rows hold one class, yes"),
        (
            [("cost", row, "2.5") for row in ALL_ROWS],
            {"target": "cost", "drop": []},
            "column cost, the target: all 60 rows hold 2.5",
        ),
        ([("ill", row, f"no {row}") for row in ALL_ROWS], {}, "column ill, the target, is another class in each row, as an id"),
        ([], {"task": "regression"}, "column ill, the target, holds text such as no, no numbers for data.task=regression"),
        (
            [],
            {"target": "cost", "drop": [], "task": "classification"},
            "column cost, the target, holds numbers such as .*, no classes",
        ),
        ([("ill", row, f"2020-01-{row % 30 + 1:02}") for row in ALL_ROWS], {}, "column ill, the target, holds dates"),
        (
            [("town", row, f"no {row}") for row in ALL_ROWS],
            {},
            r"column town is another value in each row, as an id: .*data.drop=\[cost,patient,part,town\]",
        ),
        ([], {"categorical": ["age"]}, "column age is another value in each row, as an id"),
        (
            [("age", 3, "old")],
            {},
            r"column age holds numbers but for 1 of 60 cells .old in line 5.: .*data.categorical=\[age\].*data.drop=\[cost,patient,part,age\]",
        ),
        ([("age", 3, "inf")], {}, "column age, line 5: inf is no finite number"),
        ([("age", 3, "1e39")], {}, "column age, line 5: 1e39 is beyond the numbers of 32 bits"),
        ([("bmi", row, "") for row in ALL_ROWS], {}, "column bmi has no value in any of its 60 rows"),
        ([("bmi", row, "") for row in ALL_ROWS], {"categorical": ["bmi"]}, "column bmi has no value in any of its 60 rows"),
        (
            [("part", 3, "rest")],
            {"split": "part", "drop": ["cost"]},
            "column part, line 5: rest is no split, expected train, validation or test",
        ),
        ([("part", 3, "")], {"split": "part", "drop": ["cost"]}, "column part, line 5: the cell is empty"),
        (
            [("part", row, "test") for row in ALL_ROWS],
            {"split": "part", "drop": ["cost"]},
            "column part: no row is of the split train",
        ),
        ([("patient", 3, "")], {"groups": "patient", "drop": ["cost"]}, "column patient, line 5: the cell is empty"),
        (
            [("part", 3, "val")],
            {"split": "part", "groups": "patient", "drop": ["cost"]},
            "line 5: rows of the group 0 are in two splits",
        ),
        (
            [("patient", row, "1") for row in ALL_ROWS],
            {"groups": "patient", "drop": ["part"]},
            "data.test=0.2 does not split 1 group of",
        ),
    ],
)
def test_broken_tables_are_one_line(table, changes, arguments, message):
    with pytest.raises(RecipeError, match=message) as error:
        data_of(table(*changes), **arguments)
    assert "\n" not in str(error.value) and ("own.csv" in str(error.value) or "data." in str(error.value))


def measured(path, gaps, rows=120):
    """A table whose number size is missing in each third row, in words."""
    words = [gaps[row // 3 % len(gaps)] if row % 3 == 0 else f"{row / 8}" for row in range(rows)]
    return write(
        path / "own.csv", ["size", "width", "kind"], [(word, row % 11 / 4, "ab"[row % 2]) for row, word in enumerate(words)]
    )


@pytest.mark.parametrize("gap", ["N/A", "n/a", "null", "#N/A", "<NA>", "-nan"])
def test_what_pandas_reads_as_a_hole_is_one(tmp_path, gap):
    path = measured(tmp_path, [gap])
    data = data_of(path, target="kind", drop=[])
    sizes = [row / 8 for row in range(120) if row % 3]
    assert data.shape == (2,) and set(data.splits["train"].x[:, 0].tolist()) <= {*sizes, data.state()["columns"][0]["fill"]}
    with pytest.raises(RecipeError, match="column size, the target, has no value in 40 of 120 rows .*; where .* is no hole"):
        data_of(path, target="size", drop=[])
    assert (
        data_of(path, target="kind", drop=[], missing=[], categorical=["size"], unseen="ignore").shape[0] > 20
    )  # a word like any other


@pytest.mark.parametrize("gaps", [["-"], ["None"], ["NULL", "None"], ["-", "unknown", "none"], ["-", "unknown", "none", "."]])
def test_texts_among_many_numbers_are_no_categories(tmp_path, gaps):
    path, few = measured(tmp_path, gaps), len(gaps) <= 3
    arguments = {"target": "kind", "drop": [], "unseen": "ignore"}
    if few:
        with pytest.raises(
            RecipeError, match=r"size holds numbers but for 40 of 120 .*data.missing, .*data.categorical=\[size\]"
        ):
            data_of(path, **arguments)
    widths = [data_of(path, **arguments, **so).shape[0] for so in ({"categorical": ["size"]}, {"missing": gaps})]
    assert widths[0] > 20 and widths[1] == 2
    if not few:
        assert data_of(path, **arguments).shape[0] == widths[0]
    with pytest.raises(
        RecipeError, match="size, the target, holds numbers but for 40 .*leave these rows out, type data.task=cl"
    ):
        data_of(path, target="size", drop=[])
    assert data_of(path, target="size", drop=[], task="classification").tasks[0].outputs == 80 + len(gaps)
    few_numbers = write(tmp_path / "few.csv", ["a", "y"], [("x" if row % 3 else row % 20, row % 2) for row in range(120)])
    assert data_of(few_numbers, target="y", drop=[], unseen="ignore").shape[0] > 10


def test_groups_of_other_sizes_are_told(tmp_path):
    rows = [(row / 7, "ab"[row % 2], "big" if row < 600 else f"no {row // 10}") for row in range(1000)]
    data = data_of(write(tmp_path / "own.csv", ["a", "y", "who"], rows), target="y", drop=[], groups="who")
    sizes = {name: len(split) for name, split in data.splits.items()}
    told = f"; rows of one who together: {sizes['train']:,} for train, {sizes['val']:,} for val, {sizes['test']:,} for test"
    assert data.splits["train"].remark.endswith(told) and sum(sizes.values()) == 1000


def test_a_training_split_of_one_class_is_refused_with_what_made_it(tmp_path):
    rows = [(row / 7, "ab"[row >= 90], f"2020-01-{row // 4 + 1:02}", row // 30) for row in range(120)]
    path = write(tmp_path / "own.csv", ["a", "y", "when", "who"], rows)
    with pytest.raises(RecipeError, match="all 88 training labels are of one class, 0, after the split by data.time: there is"):
        data_of(path, target="y", drop=["who"], time="when", test=0.2)
    with pytest.raises(RecipeError, match="of one class, 0, after the split by data.groups: there is"):
        data_of(path, target="y", drop=["when"], groups="who", folds=4, fold=3)


def test_a_column_without_a_name_is_left_out_or_named(tmp_path):
    rows = [[number, number * 0.5, "ab"[number % 2]] for number in range(30)]
    path = write(tmp_path / "own.csv", ["", "size", "kind"], rows)
    with pytest.raises(RecipeError, match="column 1 has no name in the header, .*data.drop=.*Unnamed: 0"):
        CsvData(str(path), "kind").setup()
    for arguments, width in (({"drop": ["Unnamed: 0"]}, 1), ({"inputs": ["Unnamed: 0", "size"]}, 2)):
        data = CsvData(str(path), "kind", **arguments)
        data.setup()
        assert data.shape == (width,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": None}, "data.path must be the path of a csv file"),
        ({"target": None}, "data.target must be the name of the column to predict"),
        ({"target": []}, "data.target must be the name of at least one column"),
        ({"target": ["a", "a"]}, "data.target must be names of which each is given once"),
        ({"drop": {"a": 1}}, "data.drop must be a name of a column or a list"),
        ({"inputs": []}, "data.inputs must be the name of at least one column"),
        ({"task": "auto"}, "data.task must be one of classification, multilabel, regression"),
        ({"impute": "mode"}, "data.impute must be one of mean, median, most_frequent"),
        ({"unseen": "zero"}, "data.unseen must be one of error, ignore"),
        ({"separator": ", "}, "data.separator must be comma, semicolon, tab or one letter, no quote"),
        ({"separator": '"'}, "data.separator must be"),
        ({"missing": "NA"}, "data.missing must be a list"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        CsvData(**{"path": "own.csv", "target": "a"} | arguments)


def test_other_separators_and_holes(tmp_path):
    rows = [[number * 0.5 if number % 3 else -999, "ab"[number % 2], number % 2] for number in range(30)]
    for separator, given in (("\t", "tab"), (";", "semicolon"), ("|", "|")):
        path = write(tmp_path / "own.csv", ["size", "kind", "target"], rows, separator)
        data = CsvData(str(path), "target", separator=given, missing=[-999], impute="most_frequent")
        data.setup()
        assert data.shape == (3,) and data.splits["train"].x[:, 0].min() >= 0


WORDS = ("data=csv", "model=linear", "optimizer.lr=0.05", "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu")


def real(path, name):
    """A table of scikit-learn with a column of words made of one of its columns, and holes."""
    source = {"diabetes": load_diabetes, "breast_cancer": load_breast_cancer}[name]()
    draw = np.random.default_rng(0)
    words = np.array(["low", "middle", "high"])[np.digitize(source.data[:, 2], np.quantile(source.data[:, 2], [0.3, 0.7]))]
    target = source.target if name == "diabetes" else source.target_names[source.target]
    rows = [
        ["" if draw.random() < 0.05 else value for value in [*row, word]] + [y]
        for row, word, y in zip(source.data, words, target, strict=True)
    ]
    return write(path / f"{name}.csv", [*source.feature_names, "level", "y"], rows)


def test_training_of_a_regression_is_better_than_the_mean(tmp_path):
    path = real(tmp_path, "diabetes")
    done = command(
        "train.py",
        *WORDS,
        f"data.path={path}",
        "data.target=y",
        "data.impute=median",
        "max_epochs=30",
        cwd=tmp_path,
        forked=True,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "data: diabetes.csv: 10 numeric and 1 categorical columns (13 inputs), 442 rows; target y: a regression" in done.stdout
    )
    folder = run_folder(tmp_path)
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert metrics["test/loss"] < 0.75 * np.var(load_diabetes().target)


def test_training_of_classes_and_prediction(tmp_path):
    path = real(tmp_path, "breast_cancer")
    words = (*WORDS, f"data.path={path}", "data.target=y")
    assert "breast_cancer.csv: column " in mistake(*words, cwd=tmp_path, forked=True)
    done = command("train.py", *words, "data.impute=median", "max_epochs=20", cwd=tmp_path, forked=True)
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    assert json.loads((folder / "result.json").read_text())["metrics"]["test/acc"] > 0.93
    again = command("evaluate.py", str(folder), cwd=tmp_path, forked=True)
    assert again.returncode == 0 and "the test split" in again.stdout
    names, *rows = csv.reader(path.open())
    other = write(tmp_path / "other.csv", names[:-1], [row[:-1] for row in rows[::-1]])
    predicted = Predictor([folder]).predict(other)
    assert list(predicted.ids) == [str(line) for line in range(2, 571)]
    assert np.mean([label == row[-1] for label, row in zip(predicted.labels(), rows[::-1], strict=True)]) > 0.93


def test_columns_of_labels_that_a_row_may_have(tmp_path):
    rows = [
        [number / 7, number % 2, ("no", "yes")[number % 3 == 0], ("False", "True")[number % 5 == 1]] for number in range(60)
    ]
    path = write(tmp_path / "labels.csv", ["age", "ill", "old", "big"], rows)
    labels = {"target": ["ill", "old", "big"], "task": "multilabel", "drop": []}
    data = data_of(path, **labels)
    assert [(task.name, task.kind, task.outputs, task.names) for task in data.tasks] == [
        ("", "multilabel", 3, ("ill", "old", "big"))
    ]
    assert "targets ill, old, big: labels that a row may have" in data.splits["train"].remark
    for split in data.splits.values():
        numbers = [round(7 * float(age)) for age in split.x[:, 0]]
        assert split.targets[""].tolist() == [[n % 2 == 1, n % 3 == 0, n % 5 == 1] for n in numbers]
    few = write(tmp_path / "few.csv", ["age", "ill", "old", "big"], [[1.5, 1, "no", "False"], [2.5, 1, "no", "True"]])
    other = loaded(few, data.state(), **labels)
    other.setup_test("", "x")
    assert other.splits["test"].targets[""].tolist() == [[True, False, False], [True, False, True]]


def test_refuses_columns_that_are_no_labels(tmp_path):
    path = write(tmp_path / "labels.csv", ["age", "ill", "old", "far"], [[n / 7, n % 3, n % 2, 1] for n in range(60)])
    for target, message in (
        (["ill", "old"], "column ill, a label of data.task=multilabel, must hold 0 and 1, .*; got 0, 1, 2"),
        (["old", "far"], "column far, a label of data.task=multilabel, must hold 0 and 1, .*; got 1"),
        ("old", "the names of the columns of at least two labels"),
    ):
        with pytest.raises(RecipeError, match=message):
            data_of(path, target=target, task="multilabel", drop=[])
