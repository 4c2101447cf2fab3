"""The commands of the README that need a cluster run on a real Slurm as they stand there."""

import shlex

import pytest

from tests.command import command
from tests.test_readme import ON_CLUSTER


@pytest.mark.parametrize("line", [line for block in ON_CLUSTER for line in block])
def test_commands(slurm, tmp_path, line):
    _, script, *words = shlex.split(line)
    done = command(script, *words, cwd=tmp_path, timeout=400, **slurm.environment)
    assert done.returncode == 0 and "test/acc, larger is better" in done.stdout
    assert len(list(tmp_path.glob("multirun/*/*/[01]/result.json"))) == 2
