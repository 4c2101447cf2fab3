"""What somebody else may have written: read with limits, never followed, told in one line."""

import csv
import io
import json
import math
import os
import pickle
import zipfile
from dataclasses import fields

import pytest
import torch

from plugins.errors import RecipeError
from recipes.config import allowed
from recipes.config.allowed import check_settings, check_words
from recipes.config.catalogue import Catalogue
from recipes.config.errors import from_cell, one_line, printable, to_cell
from recipes.config.launchers import ProcessesConf
from recipes.config.places import check_files
from recipes.config.quoting import quote
from recipes.config.sweepers import PRUNERS, SAMPLERS
from recipes.config.untrusted import LARGEST, read_json, read_text, read_yaml
from recipes.engine import kept
from recipes.store.files import hold, is_held, open_to_append, write_text
from recipes.store.plan import Plan, expect_inside
from recipes.store.shapes import histograms_of, numbers_of, read_confusion, read_result

STEERING = "a\x1b[31mb\x9bc\u202ed\u2028e\x7ff\x00g\ud800h\u200bi\rj"


def refused(read, *arguments):
    """The one line about a file."""
    with pytest.raises(RecipeError) as caught:
        read(*arguments)
    line = one_line(caught.value)
    assert line == str(caught.value) and line.isprintable()
    return line


# Text


def test_nothing_steers_a_terminal():
    shown = printable(STEERING)
    assert shown.isprintable() and [letter for letter in shown if letter.isalnum() or letter in "[3"] == list("a[31mbcdefghij")
    assert shown.encode() and printable("größe ±1 → 数") == "größe ±1 → 数" and printable("a\nb", "\n") == "a\nb"
    assert one_line(ValueError(STEERING)).isprintable() and one_line(ValueError("")) == "ValueError"


@pytest.mark.parametrize(
    "text", ["+regularizer=dropout", "=1+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "＝1", "'x", "''"]
)
def test_a_text_that_a_spreadsheet_would_run_is_a_text(text):
    cell = to_cell(text)
    assert cell == f"'{text}" and from_cell(cell) == text


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+1e-3", "-inf", "", "plain", None, 3, "a=b"])
def test_numbers_and_plain_texts_stay_as_they_are(value):
    assert to_cell(value) is value and (not isinstance(value, str) or from_cell(value) == value)


@pytest.mark.parametrize("word", ["a`b`", "a\nb", "~root", "a\tb", "a{b,c}", "$(x)", "x^y", "a'b"])
def test_a_word_of_others_is_quoted_for_the_shell(word):
    import shlex

    assert shlex.split(quote(word)) == [word] and ("`" not in word or quote(word).startswith("'"))


# Files

WRONG_JSON = {
    b"": "cannot be read",
    b"[]": "not a list",
    b"null": "not null",
    b"3": "not a number",
    b'"x"': "not a text",
    b'{"a": ': "cannot be read",
    b"\xff\xfe{\x00}\x00": "UTF-8",
    b"\x00\x01": "cannot be read",
    b'{"a": ' + b"[" * 100_000: "deeper",
    b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}": "deeper",
    b'{"a": 1, "a": 2}': "twice",
    b'{"a": ' + b"9" * 5000 + b"}": "cannot be read",
    b'{"a": ' + b"9" * 30 + b"}": "too large",
    b'{"a": "' + b"x" * LARGEST + b'"}': "larger than",
}


@pytest.mark.parametrize("content", WRONG_JSON, ids=lambda content: content[:12])
def test_json_that_we_do_not_write(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    line = refused(read_json, path)
    assert line.startswith(str(path)) and WRONG_JSON[content] in line


WRONG_YAML = {
    b"- a": "not a list",
    b"3": "not a number",
    b"2020-01-01": "not a text",
    b"a: [": "cannot be read",
    b"a: 1\na: 2": "twice",
    b"a: &x 1\nb: *x": "no aliases",
    b"a: &x [1]\nb: {<<: *x}": "no aliases",
    b"a: !!binary aGVsbG8=": "the tag",
    b"a: !!python/object/apply:os.getcwd []": "the tag",
    b"!!map {a: 1}": "the tag",
    b"a: " + b"[" * 100_000: "nest",
    b"a: " + b"{b: " * 300 + b"}" * 300: "nest",
    b"1: a": "no text",
    b"null: a": "no text",
    b"true: a": "no text",
    b"[a]: b": "cannot be read",
    b"a: 1\n--- \nb: 2": "one document",
    b"\xff\xfea\x00:\x00": "UTF-8",
    b"a: \x00": "cannot be read",
    b"a: " + b"9" * 5000: "cannot be read",
    b"a: " + b"1:" * 3000 + b"1": "",
    b"a: 1" + b" " * LARGEST: "larger than",
}


@pytest.mark.parametrize("content", WRONG_YAML, ids=lambda content: content[:12])
def test_yaml_that_we_do_not_write(tmp_path, content):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    line = refused(read_yaml, path)
    assert line.startswith(str(path)) and WRONG_YAML[content] in line


def test_plain_yaml_is_read_as_hydra_reads_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text('a: 1e-3\nb: 2020-01-01\nc: yes\nd: "\\e[31mx"\ne: null\n"\\e": 1\n')
    assert read_yaml(path) == {"a": 0.001, "b": "2020-01-01", "c": True, "d": "\ufffd[31mx", "e": None, "\ufffd": 1}
    path.write_text("")
    assert read_yaml(path) == {}


def test_texts_come_without_control_characters(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({STEERING: {"x": [STEERING]}, "n": "a\nb"}))
    found = read_json(tmp_path / "a.json")
    assert all(key.isprintable() for key in found) and found["n"] == "a\nb" and json.dumps(found).encode()
    assert "\x1b" not in str(found.values()) and str(found).encode()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "dangling"])
def test_only_files_are_read_written_and_locked(tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_text("api_key: 123")
    folder, path = tmp_path / "run", tmp_path / "run" / "train.log"
    folder.mkdir()
    {
        "link": lambda: path.symlink_to(secret),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to(tmp_path / "new"),
    }[kind]()

    def lock():
        with hold(path, "trains"):
            pass

    lines = [refused(read_text, path), refused(open_to_append, path), refused(lock), refused(check_files, folder)]
    lines += [] if kind == "dangling" else [refused(is_held, path)]
    assert all(str(path) in line and "api_key" not in line for line in lines)
    assert secret.read_text() == "api_key: 123" and not (tmp_path / "new").exists()


def test_the_part_of_a_file_is_no_link_either(tmp_path):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / f"a.part-{os.getpid()}").symlink_to(tmp_path / "secret")
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "secret").read_text() == "mine" and (tmp_path / "a").read_text() == "text"


def test_what_lies_below_a_run_is_no_link(tmp_path):
    real, run = tmp_path / "real", tmp_path / "run"
    (real / "checkpoints").mkdir(parents=True)
    (run / "wandb" / "run-1" / "logs").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    (run / "wandb" / "run-1" / "logs" / "debug-core.log").symlink_to("/nowhere")
    (run / "mine.txt").symlink_to(real)
    check_files(run)
    (tmp_path / "link").symlink_to(run)
    check_files(tmp_path / "link")  # was typed
    (run / "checkpoints").symlink_to(real / "checkpoints")
    assert "checkpoints" in refused(check_files, run)
    (run / "checkpoints").unlink()
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").symlink_to(real)
    assert "last.ckpt" in refused(check_files, run)
    assert "is refused" in refused(expect_inside, tmp_path, "link/checkpoints")


# What must be in them


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("metrics", value) for value in (None, [], "x", {"a": "1"}, {"a": True}, {"a": 10**40}, {"a": [1]})),
        *(("steps", value) for value in ("3", 3.5, [3], {}, True)),
        *(("status", value) for value in (None, 3, "done", "finished\nerror: x")),
        *(("config", value) for value in (None, [], {"seed": None}, {"seed": "0"})),
        *(("command", value) for value in (None, "x", [1], [["x"]])),
        *(("versions", value) for value in ("2.6", 3)),
        ("seconds", "3 s"),
        ("error", ["x"]),
        ("techniques", "sgd"),
        ("wandb", "x"),
    ],
)
def test_a_result_of_other_types(tmp_path, name, value):
    (tmp_path / "result.json").write_text(json.dumps({"status": "finished", "config": {}, "metrics": {}} | {name: value}))
    line = refused(read_result, tmp_path)
    assert str(tmp_path / "result.json") in line and (name in line or "number" in line)


def test_a_number_too_large_for_json_is_no_metric(tmp_path):
    (tmp_path / "result.json").write_text('{"status": "finished", "metrics": {"a": 1e400}}')
    assert "metrics" in refused(read_result, tmp_path)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,a\nx,1\n", "step,a\n1,high\n", "step,a\n1,2\n" + "9" * 5000 + ",1\n"])
def test_metrics_of_other_types(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    assert str(path) in refused(lambda: list(numbers_of(path)))


@pytest.mark.parametrize("row", ["1,a,0,1", "1,a,0,1,x", "1,a,nan,1,1", "1,a,2,1,1", "x,a,0,1,1", "1,,0,1,1", "1,a,0,1,-1"])
def test_histograms_of_other_types(tmp_path, row):
    path = tmp_path / "histograms.csv"
    path.write_text(f"step,name,low,high,counts\n{row}\n")
    assert "line 2" in refused(lambda: list(histograms_of(path)))


@pytest.mark.parametrize(
    "value", [None, 3, {"a": 3}, {"a": {"classes": ["x"], "matrix": [[1, 2]]}}, {"a": {"classes": [1], "matrix": [[1]]}}]
)
def test_confusion_of_other_types(tmp_path, value):
    (tmp_path / "confusion.json").write_text(json.dumps({"test": value}))
    assert "confusion.json" in refused(read_confusion, tmp_path)


# Words


ALLOWED = [
    *("seed=0,1", "+regularizer=[],[dropout]", "optimizer.lr=interval(0.001,1)", "name=${hydra:job.num}", "notes='${seed}'"),
    *("data=npz", "data.path=/data/x.npz", "optimizer.lr=tag(log,interval(0.01,1))", "data.download=true", "model.hidden=[16]"),
]
NOT_ALLOWED = [
    *(
        "notes=${oc.env:HOME}",
        "notes=${oc.decode:x}",
        "seed=${a.${b}}",
        "notes=${hydra:runtime.cwd}",
        "notes=${hydra.job.name}",
    ),
    *("hydra.run.dir=/home/x", "+hydra.callbacks.x={_target_: os.system}", "++hydra.callbacks.x=1", "hydra/job_logging=x"),
    *(
        "hydra={a: 1}",
        "~hydra.x",
        "resume=x",
        "+sweep=x",
        "--config-dir=x",
        "-m",
        "",
        "seed",
        "seed=0\x1b[31m",
        "seed@_global_=1",
    ),
    *("hydra.searchpath=[file:///x]", "seed=" + "[" * 5000, "seed=${", "a=b\nhydra.x=1", "regularizer@hydra.callbacks=x"),
]


def test_words_that_a_sweep_may_say(tmp_path):
    check_words(tmp_path / "jobs.yaml", ALLOWED)


@pytest.mark.parametrize("word", NOT_ALLOWED, ids=lambda word: word[:30])
def test_words_that_a_file_may_not_say(tmp_path, word):
    assert str(tmp_path / "jobs.yaml") in refused(check_words, tmp_path / "jobs.yaml", ["seed=0", word])


def test_a_file_has_nothing_downloaded_to_elsewhere(tmp_path):
    words = ["data.download=true", f"data.root={tmp_path}"]
    assert "working folder" in refused(check_words, tmp_path / "jobs.yaml", words)


SETTINGS = [
    *("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=30", "hydra.launcher.n_jobs=-1"),
    *(
        "hydra.launcher.constraint='a100&nvlink'",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=3",
        "++hydra.launcher.n_jobs=2",
    ),
    *("hydra.sweeper.sampler.seed=3", "hydra.sweeper.direction=minimize", "hydra.sweep.subdir=${hydra.job.override_dirname}"),
    *("hydra/launcher=ray", "hydra.launcher.ray.init.address=auto", "hydra.launcher.ray.remote.num_gpus=0.5"),
    *("hydra.sweeper.objectives=val/acc", "hydra.sweeper.pruner.max_resource=9"),
]
NO_SETTINGS = [
    *(
        "+hydra.callbacks.x={_target_: torch.hub.load, repo_or_dir: x}",
        "hydra.launcher.setup=[reboot]",
        "hydra.launcher._target_=x",
    ),
    *("hydra.launcher.additional_parameters={wrap: reboot}", "hydra.sweeper._target_=os.system", "hydra.job_logging.x=1"),
    *("hydra.sweeper.pruner._target_=os.system", "hydra.sweeper.direction=[[a]]", "hydra.sweeper.objectives=[{a: 1}]"),
    *("hydra.sweeper.sampler._target_=os.system", "hydra.sweeper.params={a: 1}", "hydra.sweeper.storage=sqlite:///x", "seed=1"),
    *(
        "hydra.sweeper.custom_search_space=os.system",
        "hydra.searchpath=[file:///x]",
        "hydra.job.env_set.PATH=x",
        "hydra.run.dir=x",
    ),
    *(
        "hydra.launcher.submitit_folder=/x",
        "hydra/launcher=evil",
        "hydra/sweeper=evil",
        "hydra/callbacks=x",
        "hydra.sweep.dir=/x",
    ),
    *(
        "hydra.launcher.n_jobs={_target_: os.system}",
        "hydra.launcher.n_jobs=${oc.env:X}",
        "hydra.launcher.ray.init.address=evil:1",
    ),
    *(
        'hydra.launcher.partition="x\\nreboot"',
        "hydra.launcher.partition='x\nreboot'",
        "hydra.launcher.name=[a]",
        "~hydra.launcher",
    ),
    *(
        "hydra.sweep.subdir=../x",
        "hydra.sweep.subdir=${oc.env:X}",
        "hydra.launcher.n_jobs=1,2",
        "hydra.output_subdir=x",
        "hydra={a: 1}",
    ),
]


def test_settings_with_which_a_sweep_goes_on(tmp_path):
    check_settings(tmp_path / "jobs.yaml", SETTINGS, None)


def test_a_sweep_goes_on_with_every_setting_of_its_own_launcher():
    for field in fields(ProcessesConf):
        assert field.name == "_target_" or allowed.SETTINGS[f"hydra.launcher.{field.name}"](field.default), field.name


@pytest.mark.parametrize("word", NO_SETTINGS, ids=lambda word: word[:40])
def test_settings_that_are_typed_again(tmp_path, word):
    line = refused(check_settings, tmp_path / "jobs.yaml", [*SETTINGS, word], None)
    assert str(tmp_path / "jobs.yaml") in line and (
        "type it again" in line or "no word" in line or "cannot be read" in line or ".." in word
    )


def test_no_setting_of_a_sweep_names_code(tmp_path, monkeypatch):
    assert not [
        name for options in (SAMPLERS, PRUNERS) for option in options.values() for name in option if name.startswith("_")
    ]
    monkeypatch.setitem(allowed.SETTINGS, "hydra.sweeper.pruner._target_", lambda value: True)  # as if one were listed
    assert "type it again" in refused(check_settings, tmp_path / "jobs.yaml", ["hydra.sweeper.pruner._target_=os.system"], None)


def test_a_config_folder_is_typed_again(tmp_path):
    assert "--config-dir /x" in refused(check_settings, tmp_path / "jobs.yaml", [], "/x")


@pytest.mark.parametrize("name", ["..", "/x", "a/../..", ".", "link", "link/0"])
def test_a_job_lies_in_its_sweep(tmp_path, name):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "elsewhere" / "0").mkdir(parents=True)
    (tmp_path / "sweep" / "link").symlink_to(tmp_path / "elsewhere")
    Plan(["seed=0"], jobs={name: ["seed=0"]}).write(tmp_path / "sweep")
    refused(Plan.read, tmp_path / "sweep")


# Options


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfea\x00",
        b"- a\n",
        b"mine:\n- a\n",
        b"a: [",
        b"mine:\n  _target_: 3\n",
        b"a: !!x 1",
        b"defaults: 3\n",
    ],
)
def test_a_broken_option_is_one_line(tmp_path, content):
    path = tmp_path / "regularizer" / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(content)

    def use():
        option = Catalogue([("mine", tmp_path)]).groups["regularizer"]["mine"]
        _ = option.wrapped, option.node, option.parameters, option.bases

    assert str(path) in refused(use)


# Checkpoints


def good():
    """What a run saves, as far as this project reads it."""
    task = {"name": "", "kind": "classification", "outputs": 3, "names": ()}
    recipe = {"phase": {"index": 0, "steps": 0, "seconds": 0.5}, "shape": [1, 8, 8], "tasks": [task]}
    recipe |= {"metrics": {"val/loss": math.inf}, "records": {}, "train": {"loss": [[1.0], [2.0]]}, "window": {}}
    return {"state_dict": {"weight": torch.ones(3, 2)}, "global_step": 3, "epoch": 1, "recipe": recipe}


def changed(place, value):
    state = good()
    *path, last = place.split(".")
    node = state
    for name in path:
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[last] = value
    return state


def endless():
    state = good()
    state["more"] = state["loops"] = [state["recipe"]]
    state["recipe"]["more"] = state["more"]
    return state


def bomb():
    value = ["x"]
    for _ in range(39):
        value = [value] * 10
    return good() | {"loops": value}


WRONG = {
    "list": [1],
    "tensor": torch.ones(3),
    "nothing": {},
    "text for a step": changed("global_step", "3"),
    "a negative step": changed("global_step", -1),
    "a huge step": changed("global_step", 10**40),
    "recipe is a list": changed("recipe", []),
    "no weights": changed("state_dict", []),
    "weights of text": changed("state_dict.weight", "x"),
    "a phase of text": changed("recipe.phase.index", "x"),
    "no seconds": changed("recipe.phase.seconds", None),
    "phases of text": changed("recipe.phase.ended", ["x"]),
    "a phase without its metrics": changed("recipe.phase.ended", [{"name": "first", "steps": 3}]),
    "a shape of text": changed("recipe.shape", ["x"]),
    "a huge shape": changed("recipe.shape", [10**9, 10**9]),
    "no tasks": changed("recipe.tasks", []),
    "another kind": changed("recipe.tasks.0.kind", "x"),
    "huge outputs": changed("recipe.tasks.0.outputs", 2**23),
    "more about a task": changed("recipe.tasks.0.x", 1),
    "metrics of text": changed("recipe.metrics", {"a": "b"}),
    "sums of text": changed("recipe.train", {"a": ["b", 1]}),
    "sums without counts": changed("recipe.train", {"a": [[1.0, 2.0], [1.0]]}),
    "histograms": changed("recipe.histograms", {"a": [0, 1]}),
    "endless": endless(),
    "a bomb": bomb(),
    "an expanded tensor": changed("state_dict.weight", torch.ones(1).expand(2**40)),
    "a sparse tensor": changed("state_dict.weight", torch.ones(3, 2).to_sparse()),
    "another type": changed("loops", torch.Size([3])) | {"x": {1.5: 3}},
}


def test_a_checkpoint_as_runs_save_it(tmp_path):
    torch.save(good(), tmp_path / "last.ckpt")
    assert kept.load(tmp_path / "last.ckpt")["global_step"] == 3


@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_with_other_contents(tmp_path, name):
    path = tmp_path / "last.ckpt"
    torch.save(WRONG[name], path)
    with pytest.raises(RecipeError) as caught:
        kept.load(path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "zip", "half", "compressed", "code"])
def test_a_file_that_is_no_checkpoint(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    whole = io.BytesIO()
    torch.save(good(), whole)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole.getvalue())) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    code = io.BytesIO()
    torch.save(good() | {"loops": Harmful()}, code)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("a", "b")
    content = {
        "empty": b"",
        "text": b"hello",
        "pickle": pickle.dumps(Harmful()),
        "zip": other.getvalue(),
        "half": whole.getvalue()[: len(whole.getvalue()) // 2],
        "compressed": packed.getvalue(),
        "code": code.getvalue(),
    }
    path.write_bytes(content[kind])
    with pytest.raises(RecipeError) as caught:
        kept.load(path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable() and not (tmp_path / "harm").exists()


def test_cells_are_texts_in_every_csv(tmp_path):
    from recipes.run.loggers.csv_files import CsvRunLogger

    log = CsvRunLogger(tmp_path, {})
    log.log_metrics({"=cmd()": 1.0, "loss": -0.5}, 1)
    with open(tmp_path / "metrics.csv", newline="") as file:
        head, row = list(csv.reader(file))
    assert head == ["step", "'=cmd()", "loss"] and row == ["1", "1.0", "-0.5"]
    assert list(numbers_of(tmp_path / "metrics.csv")) == [{"step": "1", "=cmd()": "1.0", "loss": "-0.5"}]
