import json
import math
import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from recipes.config.catalogue import Catalogue
from recipes.config.composing import check
from recipes.config.help import train_help
from recipes.config.quoting import show
from recipes.config.types import also
from recipes.config.words import parse_word
from recipes.store.folder import write_result
from recipes.store.shapes import FORMAT
from tests.command import ROOT, arguments, command, variables
from tests.sparsely import sparsely

CATALOGUE = Catalogue()


@pytest.mark.parametrize("columns", ["60", "100", "200"])
def test_help_lists_every_group_option_and_key(tmp_path, columns):
    done = command("train.py", "--help", cwd=tmp_path, forked=True, COLUMNS=columns)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    for group, options in CATALOGUE.groups.items():
        if not options:
            continue
        start = next(number for number, line in enumerate(lines) if line.startswith(f"  {group}: "))
        section = lines[start + 1 : lines.index("", start)]
        names = [line[4:].replace("*", " ").split()[0] for line in section if line[6:7].strip()]
        assert [name for name in names if name in options] == list(options)
        default = CATALOGUE.defaults.get(group)
        assert [line.split()[1] for line in section if line.startswith("    * ")] == ([default] if default else [])
    text = " ".join(done.stdout.split())
    for options in CATALOGUE.groups.values():
        assert all(" ".join(option.summary.split()[:3]) in text for option in options.values())
    assert all(any(line.startswith(f"    {key}=") for line in lines) for key in CATALOGUE.keys)
    assert max(map(len, lines[: lines.index("Examples")])) <= int(columns)


def test_help_of_a_group_and_of_an_option(tmp_path):
    group = command("train.py", "--help", "regularizer", cwd=tmp_path, forked=True).stdout
    assert "regularizer.dropout.p=0.5" in group and "probability that a unit is dropped" in group and "+regularizer=l2" in group
    option = command("train.py", "optimizer=adam", "-h", cwd=tmp_path, forked=True).stdout
    assert "optimizer.lr=0.001" in option and "dropout" not in option
    unknown = command("train.py", "--help", "regularizr", cwd=tmp_path, forked=True)
    assert unknown.returncode == 2 and "did you mean --help regularizer?" in unknown.stderr


def test_help_of_evaluation(tmp_path):
    done = command("evaluate.py", "--help", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "RUN_FOLDER" in done.stdout and "mnist" in done.stdout and "optimizer" not in done.stdout


def test_help_into_a_closed_pipe(tmp_path):
    process = subprocess.Popen(
        arguments("train.py", "--help"), cwd=tmp_path, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (("train.py", "--help", "seed"), ["seed=0", "initial weights"]),
        (("train.py", "--help", "max_time"), ["max_time=null", "10min"]),
        (("train.py", "seed=3", "--help"), ["seed=0"]),
        (
            ("train.py", "--help", "optimizer.lr"),
            ["optimizer=adam:", "optimizer.lr=0.001", "optimizer=sgd:", "optimizer.lr=0.1"],
        ),
        (("train.py", "--help", "lr"), ["optimizer.lr=0.001"]),
        (("train.py", "--help", "trainer.max_steps"), ["max_steps=-1"]),
        (("train.py", "--help", "trainer.precision"), ["trainer.precision=32-true", "bf16-mixed"]),
        (("train.py", "--help", "regularizer.dropout.p"), ["regularizer.dropout.p=0.5"]),
        (("train.py", "--help", "regularizer.dropout"), ["regularizer.dropout.mode=inverted"]),
        (("train.py", "--help", "+wrapper=none,sam"), ["wrapper.sam.rho=0.05"]),
        (("train.py", "--help", "hydra.run.dir"), ["hydra.run.dir="]),
        (("evaluate.py", "RUN", "--help"), ["RUN_FOLDER", "mc_dropout"]),
        (("evaluate.py", "--help", "RUN", "inference.samples"), ["inference.samples=20"]),
        (("evaluate.py", "RUN", "trainer.precision=64-true", "--help"), ["trainer.precision=32-true"]),
        (("compare.py", "RUN", "--help"), ["--baseline"]),
    ],
)
def test_help_of_a_key_a_parameter_and_beside_a_run(tmp_path, words, shows):
    (tmp_path / "RUN").mkdir()
    done = command(*words, cwd=tmp_path, forked=True)
    assert done.returncode == 0 and done.stderr == ""
    assert all(text in done.stdout for text in shows)


@pytest.mark.parametrize("key", CATALOGUE.keys)
def test_every_key_has_help(key):
    assert train_help(CATALOGUE, [key]).startswith(f"    {key}=")


OPTIONS = [option for options in CATALOGUE.groups.values() for option in options.values() if option.group != "recipe"]


@pytest.mark.parametrize("option", sparsely(OPTIONS, 5), ids=[f"{option.group}-{option.name}" for option in OPTIONS])
def test_what_help_prints_can_be_typed(option):
    chosen = CATALOGUE.spelling(option.group, option.name)
    place = f"{option.group}.{option.name}" if option.wrapped else option.group
    rows = re.findall(rf"^    ('?{re.escape(place)}\.\S+)", train_help(CATALOGUE, [chosen]), re.MULTILINE)
    words = [shlex.split(row)[0] for row in rows]
    assert [word.partition("=")[0].removeprefix(f"{place}.") for word in words] == list(option.parameters)
    for word in check(CATALOGUE, [chosen, *words])[1:]:
        value = parse_word(OverridesParser.create(), word).value()
        name = word.partition("=")[0].rpartition(".")[2]
        assert value == option.parameters[name] or show(value) == option.parameters[name]
        for further in also(option.comments[name]):
            if not further.isupper():  # NAMES stands for names
                (typed,) = check(CATALOGUE, [chosen, f"{place}.{name}={further}"])[1:]
                assert show(parse_word(OverridesParser.create(), typed).value()) == further


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "compare.py"])
def test_version(tmp_path, script):
    for words in (["--version"], ["RUN", "--version"]):
        done = command(script, *words, cwd=tmp_path, forked=True)
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout.splitlines()[1:3] == [f"{name} {version(name)}" for name in ("torch", "lightning")]
        assert re.fullmatch(r"lightning-recipes \d+\.\d+\.\d+", done.stdout.splitlines()[0])


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (["--help"], "python -m recipes [GROUP=OPTION"),
        (["train", "--help", "seed"], "seed=0"),
        (["evaluate", "--help"], "python -m recipes evaluate RUN_FOLDER"),
        (["compare", "--help"], "python -m recipes compare"),
        (["--version"], "torch "),
    ],
)
def test_the_package_is_a_command(tmp_path, words, shows):
    command = [sys.executable, "-m", "recipes", *words]
    done = subprocess.run(command, cwd=ROOT, env=variables(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "" and shows in done.stdout


def test_infinity_is_kept_in_the_result_as_it_is_typed(tmp_path):
    write_result(tmp_path, {"config": {"clipping": {"max_norm": math.inf}}, "metrics": {"val/loss": math.nan}})
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "format": FORMAT,
        "config": {"clipping": {"max_norm": ".inf"}},
        "metrics": {"val/loss": None},
    }
