"""The command that trains each pair by itself."""

import re
import subprocess
import sys

import pytest

from recipes.check import refusals
from recipes.check.selections import Selections, everything
from tests.harness import ROOT, options
from tests.sweeps.all_pairs import asked, chosen, faults


@pytest.mark.slow
def test_parts_leave_the_pairs_that_have_them():
    assert chosen([]) == everything().pairs
    assert chosen(["inference/mc_dropout", "wrapper"]) == [
        ("inference/mc_dropout", name) for name in everything().names if name.startswith("wrapper/")
    ]
    with pytest.raises(SystemExit, match="wraper is neither a group nor an option"):
        chosen(["wraper"])


PICKY = '''
from plugins.base import Plugin, Refusal, Stage


class Picky(Plugin):
    """Refuses clipping."""

    stage = Stage.DIAGNOSTICS
    refuses = {"clipping": "it is picky; leave one of the two out"}

    def after_step(self, module, optimizer):
        """Do something."""
'''


@pytest.mark.slow
def test_what_is_refused_and_not_listed_is_told_and_what_is_listed_is_not(install, monkeypatch):
    install(PICKY, "Picky")
    selections = Selections([*options(), "regularizer/picky"], refusals.read())
    monkeypatch.setattr("tests.sweeps.all_pairs.everything", lambda: selections)
    pairs = [("clipping/norm", "regularizer/picky"), ("clipping/norm", "wrapper/sam"), ("inference/mc_dropout", "loss/mse")]
    (line,) = faults(asked(pairs))
    assert line.startswith("clipping/norm × regularizer/picky is refused and not listed: regularizer/picky cannot be combined")
    selections.pinned[frozenset({"clipping/norm", "wrapper/sam"})] = "no reason"
    assert faults(asked([("clipping/norm", "wrapper/sam")])) == ["clipping/norm × wrapper/sam is listed as refused and trains"]


@pytest.mark.slow
def test_the_command():
    command = [sys.executable, "-m", "tests.sweeps.all_pairs", "averaging", "clipping"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"\d+ pairs of \d+ options, 0 of them wrong\n", done.stdout)
