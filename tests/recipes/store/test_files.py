import subprocess
import sys
import time

import pytest

from plugins.errors import RecipeError
from recipes.store.files import hold, is_held
from tests.command import ROOT

HOLDING = "import sys, time; from recipes.store.files import hold\nwith hold(__import__('pathlib').Path(sys.argv[1]), 'waits'):\n  print('held', flush=True); time.sleep({})"


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds a lock for some seconds."""
    processes = []

    def start(seconds=60.0):
        command = [sys.executable, "-c", HOLDING.format(seconds), str(tmp_path / "lock")]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_one_process_at_a_time(holder, tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    process = holder()
    assert is_held(path)
    with pytest.raises(RecipeError, match="another process counts"), hold(path, "counts"):
        raise AssertionError("two processes hold the lock")
    process.kill()
    process.wait()
    assert not is_held(path)
    with hold(path, "counts"):
        assert is_held(path)  # for any other opening of the file, too
    assert not is_held(path)


def test_patience_waits_for_a_process_that_ends(holder, tmp_path):
    holder(1.5)
    began = time.monotonic()
    with hold(tmp_path / "lock", "counts", patience=60):
        assert time.monotonic() - began > 0.5


def test_a_lock_leaves_the_content_alone(tmp_path):
    (tmp_path / "lock").write_text("content")
    with hold(tmp_path / "lock", "counts"):
        pass
    assert (tmp_path / "lock").read_text() == "content"


def test_what_cannot_be_locked_is_told(tmp_path):
    with pytest.raises(RecipeError, match="expected a file, found a folder"), hold(tmp_path, "counts"):
        pass
