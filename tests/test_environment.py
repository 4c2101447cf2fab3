"""Variables of the environment that libraries read: what they do not take is told in one line."""

import shlex
from pathlib import Path

import pytest

from recipes.config.environment import blamed
from tests.command import SMALL, command, mistake, run_folder
from tests.sparsely import sparsely

LOGGED = (*(word for word in SMALL if not word.startswith("logger=")), "logger=wandb")
NOWHERE = "/proc/nowhere"  # no folder can be made there


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TORCH_LOGS", "foo", "comma separated list"),
        ("MPLBACKEND", "foo", "supported values are"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments", "expected OPTION:VALUE"),
        ("TORCHINDUCTOR_CACHE_DIR", f"{NOWHERE}/inductor", "No such file"),
    ],
)
def test_a_value_that_torch_or_matplotlib_does_not_take(tmp_path, name, value, says):
    message = mistake(*SMALL, cwd=tmp_path, **{name: value})
    assert message.startswith(f"error: {name}={value} in the environment: ") and says in message
    assert message.endswith(f"type unset {name}")
    assert not list(tmp_path.iterdir())


def test_two_ranks_tell_it_once(tmp_path):
    message = mistake(*SMALL, "trainer.devices=2", cwd=tmp_path, MPLBACKEND="foo")
    assert message.startswith("error: MPLBACKEND=foo in the environment: ")


@pytest.mark.slow
def test_a_comparison_tells_it(tmp_path):
    assert command("train.py", *SMALL, cwd=tmp_path, forked=True).returncode == 0
    done = command("compare.py", "outputs", cwd=tmp_path, MPLBACKEND="foo")
    assert done.returncode == 2
    assert done.stderr.startswith("error: MPLBACKEND=foo in the environment: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "variable",
    sparsely(
        [
            *("MODE=foo", "MODE=", "BASE_URL=foo", f"TAGS={'x' * 100}", "RESUME=foo", "HTTP_TIMEOUT=abc"),
            *("SERVICE=foo", "PROJECT=a/b", "QUIET=perhaps", f"CACHE_DIR={NOWHERE}"),
        ]
    ),
)
def test_a_value_that_wandb_does_not_take(tmp_path, variable):
    name, _, value = f"WANDB_{variable}".partition("=")
    message = mistake(*LOGGED, cwd=tmp_path, forked=True, **{name: value})
    assert message.startswith(f"error: {name}={value[:40]}") and message.endswith(f"type unset {name}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["unwritable", "none"])
def test_wandb_without_a_home_prints_no_logs_of_its_own(tmp_path, home):
    environment = {"HOME": NOWHERE if home == "unwritable" else "", "XDG_CACHE_HOME": ""}
    done = command("train.py", *LOGGED, cwd=tmp_path, forked=True, **environment)
    assert done.returncode == 0 and done.stderr == ""
    assert "wandb sync " in done.stdout


def test_the_sync_command_of_a_run_in_a_sweep_of_wandb(tmp_path):
    done = command("train.py", *LOGGED, cwd=tmp_path, forked=True, WANDB_SWEEP_ID="abcd1234")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("wandb ")]
    _, program, verb, part = shlex.split(line)
    identity = (run_folder(tmp_path) / "wandb" / "run-id.txt").read_text()
    assert (program, verb) == ("wandb", "sync")
    assert (tmp_path / part / f"run-{identity}.wandb").stat().st_size > 0
    assert command("train.py", f"resume={run_folder(tmp_path)}", "max_steps=3", cwd=tmp_path, forked=True).returncode == 0


@pytest.mark.parametrize("columns", ["0", "1", "abc"])
def test_the_table_is_printed_whatever_the_width(tmp_path, columns):
    done = command("train.py", *SMALL, cwd=tmp_path, forked=True, COLUMNS=columns)
    assert done.returncode == 0 and "│ loss " in done.stdout and "folder " in done.stdout


def test_a_failure_of_another_kind_blames_no_variable():
    with pytest.raises(FileNotFoundError) as failed:
        Path("/proc/elsewhere").mkdir()
    assert blamed(failed.value, {"HOME": "/root", "PWD": "/proc/elsewhere"}) is None
    assert blamed(failed.value, {"DATA": "/proc/elsewhere/data", "PWD": "/proc/elsewhere"}) == "DATA"
    with pytest.raises(ValueError, match="wrong") as refused:
        raise ValueError("WANDB_MODES is wrong")
    assert blamed(refused.value, {"WANDB_MODE": "x"}) is None
    assert blamed(refused.value, {"WANDB_MODE": "x", "WANDB_MODES": "y"}) == "WANDB_MODES"


def test_no_key_and_a_broken_key_are_told_apart(tmp_path):
    done = command("train.py", *LOGGED, cwd=tmp_path, forked=True, WANDB_MODE="online", WANDB_API_KEY="abc")
    assert done.returncode == 0 and "WANDB_API_KEY in the environment is no key" in done.stderr
