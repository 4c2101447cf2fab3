import subprocess

import pytest

from recipes.catalogue import Catalogue
from tests.command import arguments, command, variables

CATALOGUE = Catalogue()


@pytest.mark.parametrize("columns", ["60", "100", "200"])
def test_help_lists_every_group_option_and_key(tmp_path, columns):
    done = command("train.py", "--help", cwd=tmp_path, COLUMNS=columns)
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
    group = command("train.py", "--help", "regularizer", cwd=tmp_path).stdout
    assert "regularizer.dropout.p=0.5" in group and "probability that a unit is dropped" in group and "+regularizer=l2" in group
    option = command("train.py", "optimizer=adam", "-h", cwd=tmp_path).stdout
    assert "optimizer.lr=0.001" in option and "dropout" not in option
    unknown = command("train.py", "--help", "regularizr", cwd=tmp_path)
    assert unknown.returncode == 2 and "did you mean regularizer?" in unknown.stderr


def test_help_of_evaluation(tmp_path):
    done = command("evaluate.py", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "RUN_FOLDER" in done.stdout and "mnist" in done.stdout and "optimizer" not in done.stdout


def test_help_into_a_closed_pipe(tmp_path):
    process = subprocess.Popen(
        arguments("train.py", "--help"), cwd=tmp_path, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0
