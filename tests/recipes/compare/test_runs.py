import json
import math

import pytest
from PIL import Image

from plugins.errors import RecipeError
from recipes.compare.groups import NOTHING_ADDED, Group, differing_keys, group_runs, label
from recipes.compare.runs import find, read
from recipes.config.catalogue import Catalogue
from recipes.config.effect import flatten
from recipes.store.files import hold
from tests.recipes.compare.fabricated import config, leave

CATALOGUE = Catalogue()


def groups_of(place):
    groups = group_runs([read(folder, CATALOGUE) for folder in find([place])])
    label(groups, CATALOGUE)
    return groups


def test_runs_are_found_at_any_depth_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "9", "day/2", "wandb/latest", ".hidden/1"):
        leave(tmp_path / name)
    leave(tmp_path / "9" / "inside")  # what lies in a run belongs to it
    assert [str(folder.relative_to(tmp_path)) for folder in find([tmp_path])] == ["9", "10", "day/2"]


def test_a_run_that_is_named_twice_is_found_once(tmp_path, monkeypatch):
    leave(tmp_path / "a")
    leave(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "a")
    assert len(find([tmp_path / "b", tmp_path, tmp_path / "b" / ".." / "a"])) == 2


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_place_without_runs_is_a_mistake(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=name):
        find([tmp_path / name])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"status": "finished"}',
        '{"status": "finished", "config": []}',
        '{"status": "finished", "config": {}, "metrics": {"test/acc": "high"}}',
        '{"status": "finished", "config": {"seed": null}}',
        '{"status": "finished", "config": {}, "metrics": null}',
        '{"status": "finished", "config": {}, "seconds": "3 s"}',
        '{"status": "finished", "config": {}, "steps": [3]}',
        '{"status": "finished", "config": {}, "versions": "2.6"}',
        '{"status": "finished", "config": {}, "command": 3}',
        "[" * 100_000,
    ],
)
def test_a_result_that_no_run_writes_is_broken_not_a_traceback(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    run = read(tmp_path, CATALOGUE)
    assert run.status == "broken" and "result.json" in run.error and "\n" not in run.error


def test_a_run_is_read_as_it_was_written(tmp_path):
    words = ("+regularizer=[dropout,l2]", "optimizer=adam")
    leave(tmp_path / "a", *words, seed=7, metrics={"test/acc": 0.25, "test/loss": math.nan}, curve={"val/acc": [0.1, 0.2]})
    run = read(tmp_path / "a", CATALOGUE)
    assert (run.status, run.seed, run.metrics["test/acc"]) == ("finished", 7, 0.25)
    assert math.isnan(run.metrics["test/loss"])
    assert run.options["regularizer"] == ["dropout", "l2"] and run.options["optimizer"] == ["adam"]
    assert run.curves["val/acc"] == ([10, 20], [0.1, 0.2])


def test_half_a_row_of_the_metrics_is_left_out(tmp_path):
    leave(tmp_path / "a", curve={"val/acc": [0.1, 0.2]})
    with open(tmp_path / "a" / "metrics.csv", "a") as file:
        file.write("30,2,0.3\n4")
    assert read(tmp_path / "a", CATALOGUE).curves["val/acc"] == ([10, 20, 30], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("content", [b"step,val/acc\n10,0.1\xff\n", b"epoch,val/acc\n1,0.1\n", b"\x00\xff", b""])
def test_metrics_that_cannot_be_read_are_none(tmp_path, content):
    leave(tmp_path / "a")
    (tmp_path / "a" / "metrics.csv").write_bytes(content)
    assert read(tmp_path / "a", CATALOGUE).curves == {}


def test_a_run_whose_process_has_ended_is_interrupted(tmp_path):
    for name in ("dead", "alive", "unknown"):
        leave(tmp_path / name, status="running")
    (tmp_path / "dead" / "train.log").write_text("")
    with hold(tmp_path / "alive" / "train.log", "trains"):
        statuses = {folder.name: read(folder, CATALOGUE).status for folder in find([tmp_path])}
    assert statuses == {"dead": "interrupted", "alive": "running", "unknown": "running"}
    assert read(tmp_path / "alive", CATALOGUE).status == "interrupted"


def test_runs_behind_links_are_found_once_and_circles_end(tmp_path):
    leave(tmp_path / "real" / "1²3")
    leave(tmp_path / "real" / "2" / "x")
    place = tmp_path / "links"
    place.mkdir()
    for name, target in (("a", "real/1²3"), ("b", "real/2"), ("c", "real/2/x"), ("circle", "links"), ("gone", "nowhere")):
        (place / name).symlink_to(tmp_path / target)
    (tmp_path / "real" / "2" / "up").symlink_to(tmp_path)
    assert sorted(folder.resolve().name for folder in find([place])) == ["1²3", "x"]


def test_a_whole_number_is_the_same_however_it_is_written(tmp_path):
    for seed, rate in enumerate(("1", "1.0", "1e0", "1.5")):
        box = "[0,1]" if seed else "[0.0,1.0]"
        leave(tmp_path / str(seed), f"optimizer.lr={rate}", "+adversarial=pgd", f"adversarial.range={box}", seed=seed)
    groups = groups_of(tmp_path)
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1, 2], [3]]
    assert [group.label for group in groups] == ["optimizer.lr=1", "optimizer.lr=1.5"]


def test_what_makes_no_difference_to_the_training_does_not_part_runs(tmp_path):
    leave(tmp_path / "a", seed=3)
    leave(tmp_path / "b", "logger=csv", "trainer.progress=false", "notes=hello", seed=1)
    leave(tmp_path / "c", "optimizer.lr=0.3", seed=1)
    groups = groups_of(tmp_path)
    assert [[run.seed for run in group.runs] for group in groups] == [[1, 3], [1]]
    assert differing_keys(groups) == ["optimizer.lr"]


def test_of_a_seed_that_ran_twice_the_later_run_counts(tmp_path):
    leave(tmp_path / "1", metrics={"test/acc": 0.1})
    leave(tmp_path / "2", metrics={"test/acc": 0.2})
    (group,) = groups_of(tmp_path)
    assert group.metric("test/acc") == {(0,): 0.2}


def test_a_metric_that_a_run_lacks_is_not_a_number(tmp_path):
    leave(tmp_path / "a", metrics={"test/loss": 1.0})
    assert math.isnan(groups_of(tmp_path)[0].metric("test/acc")[0,])


def test_labels_say_in_typed_words_what_sets_groups_apart(tmp_path):
    leave(tmp_path / "1")
    leave(tmp_path / "2", "+regularizer=dropout")
    leave(tmp_path / "3", "+regularizer=dropout", "regularizer.dropout.p=0.3")
    leave(tmp_path / "4", "+regularizer=[dropout,l2]", "regularizer.dropout.p=0.3")
    leave(tmp_path / "5", "max_epochs=3")
    labels = [group.label for group in groups_of(tmp_path)]
    assert len(set(labels)) == 5
    assert labels[1].startswith("+regularizer=dropout") and labels[1].endswith("regularizer.dropout.p=0.5")
    assert "regularizer.dropout.p=0.3" in labels[2] and "+regularizer=[dropout,l2]" in labels[3]
    assert "max_epochs=3" in labels[4] and "dropout" not in labels[0]


def test_labels_of_one_difference_have_one_word(tmp_path):
    for number, words in enumerate([(), ("+regularizer=dropout",), ("+regularizer=l2",)]):
        leave(tmp_path / str(number), *words)
    assert [group.label for group in groups_of(tmp_path)] == [NOTHING_ADDED, "+regularizer=dropout", "+regularizer=l2"]


def test_what_makes_no_difference_is_in_no_label(tmp_path):
    leave(tmp_path / "1", "logger=csv")
    leave(tmp_path / "2", "logger=[csv,wandb]", "optimizer=adam", "optimizer.lr=0.1")
    assert [group.label for group in groups_of(tmp_path)] == ["optimizer=sgd", "optimizer=adam"]


def test_a_blank_name_is_none_and_a_name_is_one_line(tmp_path):
    for number, name in enumerate([" ", "\n", "a\n b "]):
        leave(tmp_path / str(number), config=config(f"max_epochs={number + 1}") | {"name": name})
    assert [group.label for group in groups_of(tmp_path)] == ["max_epochs=1", "max_epochs=2", "max_epochs=3"]
    assert groups_of(tmp_path / "2")[0].label == "a b"


def test_names_given_by_the_user_are_the_labels(tmp_path):
    leave(tmp_path / "1", "name=plain")
    leave(tmp_path / "2", "name=wet", "+regularizer=dropout")
    assert [group.label for group in groups_of(tmp_path)] == ["plain", "wet"]


def test_groups_of_options_that_are_not_installed_have_labels_of_their_own(tmp_path):
    for number, target in enumerate(["other.package.A", "other.package.B"]):
        folder = leave(tmp_path / str(number))
        result = json.loads((folder / "result.json").read_text())
        result["config"]["optimizer"]["_target_"] = target
        (folder / "result.json").write_text(json.dumps(result))
    labels = [group.label for group in groups_of(tmp_path)]
    assert len(set(labels)) == 2


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ((), NOTHING_ADDED),
        (("+regularizer=dropout",), "+regularizer=dropout"),
        (("+wrapper=sam", "optimizer=adam", "optimizer.lr=0.3"), "optimizer=adam +wrapper=sam"),
        (("normalization=batch",), "normalization=batch"),
        (("+regularizer=[dropout,l2]", "+augmentation=mixup"), "+regularizer=[dropout,l2] +augmentation=mixup"),
        (("data=mnist", "trainer=ddp"), NOTHING_ADDED),
    ],
)
def test_a_run_that_is_alone_is_named_by_what_it_has(tmp_path, words, label):
    leave(tmp_path / "a", *words)
    leave(tmp_path / "b", *words, seed=1)
    assert [group.label for group in groups_of(tmp_path)] == [label]


def test_a_group_with_a_technique_that_all_have_is_not_called_one_without(tmp_path):
    leave(tmp_path / "1", "+regularizer=dropout")
    leave(tmp_path / "2", "+regularizer=dropout", "+wrapper=sam")
    assert [group.label for group in groups_of(tmp_path)] == ["+regularizer=dropout", "+regularizer=dropout +wrapper=sam"]


def entry(step=0, **changed):
    return {"step": step, "command": [], "changed": {key.replace("__", "."): pair for key, pair in changed.items()}}


PRECISION = [entry(), entry(40, trainer__precision=["32-true", "16-mixed"], max_epochs=[2, 4])]


def test_a_run_that_was_changed_on_the_way_is_in_a_group_of_its_own(tmp_path):
    """Whichever seed it has, and whatever its last config says."""
    same = [entry(), entry(40, max_epochs=[2, 4], logger__csv___target_=[None, "x"], data__path=["a", "b"])]
    other = [entry(), entry(40, trainer__devices=[1, 2])]
    for number, history in enumerate((None, [entry()], same, PRECISION, PRECISION, other)):
        leave(tmp_path / str(number), seed=number, history=history)
    groups = groups_of(tmp_path)
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1, 2], [3, 4], [5]]
    assert [group.label for group in groups] == [
        NOTHING_ADDED,
        "resumed: trainer.precision 32-true→16-mixed at step 40",
        "resumed: trainer.devices 1→2 at step 40",
    ]
    assert differing_keys(groups) == ["resumed"]


def test_what_was_changed_stands_behind_the_other_words_of_a_label_and_behind_a_name(tmp_path):
    leave(tmp_path / "1", "+wrapper=sam", "optimizer.lr=0.3", history=PRECISION)
    leave(tmp_path / "2", "optimizer.lr=0.1")
    told = "resumed: trainer.precision 32-true→16-mixed at step 40"
    assert groups_of(tmp_path)[0].label == f"+wrapper=sam optimizer.lr=0.3 {told}"
    for number in (3, 4):
        leave(tmp_path / "named" / str(number), "name=mine", seed=number, history=PRECISION if number == 3 else None)
    assert sorted(group.label for group in groups_of(tmp_path / "named")) == [NOTHING_ADDED, told]
    assert [group.label for group in groups_of(tmp_path / "named" / "3")] == [f"mine {told}"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.00010000000000000002, "0.0001"),
        (0.30000000000000004, "0.3"),
        (1e-05, "1e-05"),
        (0.05440813664739465, "0.05440813664739465"),  # which a search has drawn
        (0.1, "0.1"),
    ],
)
def test_labels_leave_out_what_rounding_has_added(tmp_path, value, shown):
    leave(tmp_path / "1", f"optimizer.lr={value!r}")
    leave(tmp_path / "2", "optimizer.lr=3.0")
    assert groups_of(tmp_path)[0].label == f"optimizer.lr={shown}"


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None, "f": {}}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_differing_keys_see_absent_ones(tmp_path):
    leave(tmp_path / "1")
    leave(tmp_path / "2", "+clipping=norm")
    keys = differing_keys(groups_of(tmp_path))
    assert keys and all(key.startswith("clipping.") for key in keys)
    assert isinstance(groups_of(tmp_path)[0], Group)


def test_records_for_the_report_are_read_back(tmp_path):
    folder = leave(tmp_path / "run", techniques=["mixup"])
    assert (read(folder, CATALOGUE).confusion, read(folder, CATALOGUE).histograms, read(folder, CATALOGUE).pictures) == (
        {},
        {},
        {},
    )
    (folder / "confusion.json").write_text('{"test": {"digit": {"classes": ["a", "b"], "matrix": [[1, 2], [3, 4]]}}}')
    (folder / "histograms.csv").write_text("step,name,low,high,counts\n10,x/y,-1.5,2,1 0 3\n20,x/y,0,0,4\n")
    (folder / "pictures").mkdir()
    Image.new("L", (3, 2)).save(folder / "pictures/mixup.png")
    run = read(folder, CATALOGUE)
    assert run.techniques == ["mixup"]
    assert run.confusion == {"digit": (["a", "b"], [[1, 2], [3, 4]])}
    assert run.histograms == {"x/y": [(10, -1.5, 2.0, [1, 0, 3]), (20, 0.0, 0.0, [4])]}
    assert run.pictures == {"mixup": folder / "pictures/mixup.png"}


def test_records_that_were_cut_off_anywhere_are_left_out(tmp_path):
    folder = leave(tmp_path / "run")
    (folder / "pictures").mkdir()
    Image.new("L", (3, 2)).save(tmp_path / "whole.png")
    whole = {
        "confusion.json": b'{"test": {"": {"classes": ["a", "b"], "matrix": [[1, 2], [3, 4]]}}}',
        "histograms.csv": b"step,name,low,high,counts\n10,x,0,1,1 2 3\n20,x,0,1,4 5 6\n",
        "pictures/mixup.png": (tmp_path / "whole.png").read_bytes(),
    }
    for name, content in whole.items():
        for length in range(len(content)):
            (folder / name).write_bytes(content[:length])
            run = read(folder, CATALOGUE)
            assert run.confusion == {} and run.pictures == {}
            assert all(counts in ([1, 2, 3], [4, 5, 6]) for *_, counts in run.histograms.get("x", []))
        (folder / name).unlink()
    for wrong in ('{"test": {"": {"classes": ["a"], "matrix": [[1, 2]]}}}', '{"test": 3}', "[]", '{"test": {"": null}}'):
        (folder / "confusion.json").write_text(wrong)
        assert read(folder, CATALOGUE).confusion == {}


@pytest.mark.parametrize("folds", [[1, 2, 3], "x", 1, {"a": 1}])
def test_folds_may_mean_something_else_in_a_class_of_ones_own(tmp_path, folds):
    whole = config()
    found = read(leave(tmp_path / "0", config={**whole, "data": {**whole["data"], "folds": folds, "fold": 0}}), CATALOGUE)
    assert found.status == "finished" and found.folds == 0 and found.replicate == (0,) and found.cut == (0, 0)
