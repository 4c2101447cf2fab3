"""A process that ends with its parent: what was started by one that is gone already."""

import shlex
import subprocess
import sys

import pytest

from tests.command import SMALL, arguments, variables, wait_until

GONE = "the torchrun that has started this rank is gone\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process tells who has started it")
def test_a_rank_whose_torchrun_was_gone_before_it_could_ask_ends_at_once(tmp_path):
    words = shlex.join(arguments("train.py", *SMALL))
    later = f"(while kill -0 $$ 2> /dev/null; do sleep 0.05; done; exec {words} > {tmp_path}/out 2> {tmp_path}/errors) &"
    env = variables(
        TORCHELASTIC_RUN_ID="none", LOCAL_RANK="0", RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="9"
    )
    subprocess.run(["sh", "-c", later], cwd=tmp_path, env=env, check=True)
    errors = tmp_path / "errors"
    wait_until(lambda: errors.exists() and errors.read_text() == GONE)
    assert (tmp_path / "out").read_text() == ""


@pytest.mark.slow
def test_a_rank_below_a_shell_of_torchrun_trains(tmp_path):
    words = shlex.join(arguments("train.py", *SMALL, "trainer=ddp", "trainer.devices=2", f"hydra.run.dir={tmp_path}/run"))
    start = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
        "sh",
        "-c",
        f"{words}; exit $?",
    ]
    done = subprocess.run([sys.executable, *start], cwd=tmp_path, env=variables(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
