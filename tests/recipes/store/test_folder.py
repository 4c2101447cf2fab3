import json
import logging
import shlex
import sys
import warnings
from contextlib import nullcontext

import pytest
import torch
import yaml
from rich.console import Console

from plugins.base import Task
from plugins.errors import RecipeError
from recipes.config.errors import first_line
from recipes.config.quoting import quote
from recipes.run.logs import log_to
from recipes.run.provenance import environment, peak_memory
from recipes.run.terminal import table
from recipes.store.folder import read_result, write_config, write_confusion, write_result
from recipes.store.plan import Plan
from recipes.store.shapes import FORMAT


@pytest.mark.parametrize(
    "word",
    ["optimizer=adam", "+regularizer=[dropout,l2]", 'notes="it\'s"', "name=a b", "x=$HOME", "y=`ls`", "tags=[a,'b c']", "a\\b"],
)
def test_quoted_words_are_the_words_for_the_shell(word):
    assert shlex.split(quote(word)) == [word]
    assert quote("optimizer.lr=1e-3") == "optimizer.lr=1e-3"


def test_the_config_stands_under_its_command(tmp_path):
    write_config(tmp_path, {"seed": 3, "notes": "größer"}, ["seed=3", "+regularizer=[l2]"])
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[1] == "#   python train.py seed=3 '+regularizer=[l2]'"
    assert yaml.safe_load(text) == {"seed": 3, "notes": "größer"}


def test_results_are_read_as_written(tmp_path):
    assert read_result(tmp_path) == {}
    result = {"status": "finished", "metrics": {"val/acc": 1 / 3}, "seed": 0}
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result
    assert json.loads((tmp_path / "result.json").read_text()) == {"format": FORMAT, **result}
    (tmp_path / "result.json").write_text('{"status": ')
    with pytest.raises(RecipeError, match=r"result.json cannot be read") as error:
        read_result(tmp_path)
    assert "\n" not in str(error.value)


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_what_is_not_finite_is_null_for_strict_readers(tmp_path):
    nan, inf = float("nan"), float("inf")
    result = {"metrics": {"val/loss": nan, "val/acc": 0.5, "test/loss": -inf}, "config": {"a": [1, (inf, 2.5)], "b": None}}
    write_result(tmp_path, result)
    written = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert written["config"] == {"a": [1, [".inf", 2.5]], "b": None}  # as YAML writes it
    metrics = read_result(tmp_path)["metrics"]
    assert metrics.pop("val/acc") == 0.5 and all(value != value for value in metrics.values()) and len(metrics) == 2
    older = json.dumps({"status": "finished", "metrics": {"val/loss": nan}})  # as earlier versions wrote it
    (tmp_path / "result.json").write_text(older)
    assert "nan" in list(table(read_result(tmp_path)).columns[1].cells)


def test_the_confusion_file(tmp_path):
    tasks = [Task("", "regression", 1)]
    write_confusion(tmp_path, tasks, {})
    assert not (tmp_path / "confusion.json").exists()
    tasks += [Task("kind", "classification", 2, ("große", "kleine")), Task("digit", "classification", 3)]
    matrices = {"digit": [[1, 0, 2], [0, 3, 0], [0, 0, 0]], "kind": [[4, 1], [0, 1]]}
    write_confusion(tmp_path, tasks, matrices)
    assert json.loads((tmp_path / "confusion.json").read_text()) == {
        "test": {
            "kind": {"classes": ["große", "kleine"], "matrix": [[4, 1], [0, 1]]},
            "digit": {"classes": ["0", "1", "2"], "matrix": [[1, 0, 2], [0, 3, 0], [0, 0, 0]]},
        }
    }


def test_what_a_number_can_be_traced_by():
    facts = environment()
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0] or facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["python"] == sys.version.split()[0] and facts["machine"]
    assert peak_memory(torch.device("cpu")) > 10**7


def test_the_table_has_a_row_for_each_metric_and_a_column_for_each_split():
    metrics = {"test/acc": 0.5, "val/loss": 0.25, "val/acc": 0.75, "train/loss": 0.125, "gap/acc": 0.1, "val/digit/acc": 1.0}
    console = Console(width=80, record=True, quiet=True)
    shown = table({"metrics": metrics})
    assert [column.header for column in shown.columns] == ["metric", "train", "val", "test"]
    assert [list(map(str, column.cells)) for column in shown.columns] == [
        ["loss", "acc", "digit/acc"],
        ["0.1250", "", ""],
        ["0.2500", "0.7500", "1.0000"],
        ["", "0.5000", ""],
    ]
    console.print(shown)


def test_messages_and_warnings_go_to_the_log(tmp_path, capsys):
    before = warnings.showwarning
    with log_to(tmp_path) as journal:
        logging.getLogger("recipes").info("a message")
        assert not (tmp_path / "train.log").exists()  # there is no run yet that it belongs to
        journal.pass_on()
        logging.getLogger("recipes").warning("for the user")
        warnings.warn("of somebody", UserWarning, stacklevel=1)
        warnings.warn_explicit("of a technique", UserWarning, str(ours()), 1)
    logging.getLogger("recipes").warning("too late")
    text = (tmp_path / "train.log").read_text()
    assert all(part in text for part in ("INFO a message", "WARNING for the user", "of somebody", "of a technique"))
    assert "too late" not in text
    assert capsys.readouterr().err.splitlines()[:2] == ["warning: for the user", "warning: of a technique"]
    assert warnings.showwarning is before


def ours():
    from plugins.regularizer import dropout

    return dropout.__file__


def test_one_line():
    assert first_line(ValueError("first\nsecond")) == "first"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_what_a_newer_version_has_written_is_refused(tmp_path):
    write_result(tmp_path, {"status": "finished", "config": {}, "metrics": {}, "command": []})
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["format"] == FORMAT
    for version, refused in ((FORMAT, False), (FORMAT + 1, True), (None, False)):
        (tmp_path / "result.json").write_text(json.dumps({**written, "format": version}))
        (tmp_path / "jobs.yaml").write_text(yaml.safe_dump({"format": version, "words": [], "hydra": [], "jobs": {}}))
        for read in (read_result, Plan.read):
            with pytest.raises(RecipeError, match="newer version, in format 2") if refused else nullcontext():
                read(tmp_path)
