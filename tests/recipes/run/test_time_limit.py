"""`max_time` ends a run as any other end does, and a run that goes on ends where the uninterrupted one ends."""

import pytest

from recipes.engine.checkpoint import load_checkpoint
from recipes.run.time_limit import TimeLimit


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second each step."""
    now = [0.0]
    monkeypatch.setattr("recipes.run.time_limit.time.monotonic", lambda: now[0])
    end = TimeLimit.on_train_batch_end

    def tick(limit, *arguments):
        now[0] += 1.0
        end(limit, *arguments)

    monkeypatch.setattr(TimeLimit, "on_train_batch_end", tick)
    return now


def test_a_run_ends_by_its_time_and_goes_on(folder, folders, clock, capsys):
    words = ("max_epochs=2", "optimizer=momentum", "scheduler=cosine")
    ended = folder.train(*words, "max_time=25s")
    assert ended["steps"] == 25 and ended["status"] == "finished" and ended["ended_by"] == "max_time"
    assert not ended["stopped_early"] and {"val/acc", "test/acc"} <= set(ended["metrics"])
    shown = capsys.readouterr().out
    assert "it ended by max_time=25s; to train it for longer: " in shown and "max_time=50s" in shown
    again = folder.resume()
    assert again["steps"] == 25 and "max_time=50s" in capsys.readouterr().out
    assert folder.resume("max_time=20s")["steps"] == 25  # less than what is over
    assert folder.resume("max_time=50s")["steps"] == 50  # the time of both starts counts
    whole = folders("whole").train(*words)
    last = folder.resume("max_time=null")
    assert last["ended_by"] is None and last["steps"] == whole["steps"] == 80
    assert last["metrics"] == whole["metrics"]
    first, second = (load_checkpoint(each.path / "checkpoints" / "last.ckpt") for each in (folder, folders("whole")))
    assert all(bool((value == second["state_dict"][key]).all()) for key, value in first["state_dict"].items())
    assert first["callbacks"].keys() == second["callbacks"].keys()


def test_what_comes_first_ends_the_run(folder, clock):
    ended = folder.train("max_steps=7", "max_time=1h")
    assert ended["steps"] == 7 and ended["ended_by"] is None


def test_early_stopping_is_not_the_time(folder, clock):
    ended = folder.train("+stopping=early", "max_epochs=20", "max_time=45s")
    assert ended["ended_by"] == "max_time" and ended["steps"] == 45 and not ended["stopped_early"]
    assert folder.resume("max_time=46s")["steps"] == 46
