import multiprocessing
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


def test_a_lock_ends_with_its_process_and_not_with_what_that_has_forked(tmp_path):
    """Such as the workers that load data, which live on for seconds where it was killed."""
    with hold(tmp_path / "lock", "trains"):
        begun = (context := multiprocessing.get_context("fork")).Event()
        worker = context.Process(target=lambda: begun.set() or time.sleep(60))
        worker.start()
        assert begun.wait(60)
        assert is_held(tmp_path / "lock")
    try:
        assert not is_held(tmp_path / "lock")
    finally:
        worker.kill()
        worker.join()


def test_a_lock_leaves_the_content_alone(tmp_path):
    (tmp_path / "lock").write_text("content")
    with hold(tmp_path / "lock", "counts"):
        pass
    assert (tmp_path / "lock").read_text() == "content"


def test_what_cannot_be_locked_is_told(tmp_path):
    with pytest.raises(RecipeError, match="expected a file, found a folder"), hold(tmp_path, "counts"):
        pass


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RecipeError, match=r"file/lock cannot be written \(File exists\)"),
        hold(tmp_path / "file" / "lock", "counts"),
    ):
        pass
