"""What the process that watches ranks says of them at their end, and which ranks it starts as forks."""

import json
from contextlib import nullcontext

import pytest

from plugins.errors import RecipeError
from recipes.launch import failures, watch
from recipes.store.files import hold

TRAINER = {"devices": 2, "num_nodes": 1, "accelerator": "cpu"}


def train(folder, **trainer):
    return watch.train(2, {"trainer": TRAINER | trainer}, folder, [], lambda arguments: None)


@pytest.mark.parametrize("mistake", [True, False])
def test_the_result_of_another_command_that_trains_there_is_left_alone(tmp_path, monkeypatch, mistake):
    file = tmp_path / "result.json"

    def run(self, *_):
        file.write_text('{"status": "running"}')  # of the other one, in the meantime
        self.codes |= {0: 2, 1: -15}
        if mistake:
            failures.leave_note(tmp_path, 0, "another process trains there", True)
        else:
            self.asked.append("SIGINT")

    monkeypatch.setattr(watch.Watch, "run", run)
    for held, status in ((True, "running"), (False, "failed" if mistake else "stopped")):
        with hold(tmp_path / "train.log", "trains") if held else nullcontext():
            if mistake:
                with pytest.raises(RecipeError, match="another process trains there"):
                    train(tmp_path)
            else:
                assert train(tmp_path) == {"status": "stopped", "stopped_by": "SIGINT"}
        assert json.loads(file.read_text())["status"] == status


@pytest.mark.parametrize(("devices", "forks"), [(-1, False), ("auto", False), (2, True)])
def test_a_process_that_has_counted_gpus_is_not_forked(tmp_path, monkeypatch, devices, forks):
    found = []
    monkeypatch.setattr(watch.Watch, "run", lambda self, *_: found.append(self.as_rank is not None))
    monkeypatch.setattr(watch.warm, "is_fork", True)
    for gpus in ("0,1", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        train(tmp_path, devices=devices, accelerator="auto")
    assert found == [forks, True]
