import os
import pickle
import random
import resource
import signal
import subprocess
import time
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.distributed as dist
from torch import nn

from plugins.errors import RecipeError
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.split import Split
from recipes.engine.checkpoint import BestAndLast, WholeFiles, is_better, load_checkpoint
from recipes.engine.module import RecipeModule
from recipes.engine.stop import Agreement
from recipes.store.files import unwritable, write_text
from tests.ranks import alone, on_ranks


def write_for_ever(folder, tell):
    files = WholeFiles()
    for number in range(10**6):
        values = torch.full((300_000,), float(number))
        files.save_checkpoint({"number": number, "same": number, "values": values}, folder / "last.ckpt")
        write_text(folder / "text.txt", f"{number}\n" * 20_000)
        if number == 0:
            os.write(tell, b"1")


@contextmanager
def writer(folder):
    """A process that writes the same files again and again, from when they are there until it is killed; forks."""
    ready, tell = os.pipe()
    if (number := os.fork()) == 0:
        try:
            write_for_ever(folder, tell)
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(ready, 1), "the writer has ended"
        yield
    finally:
        os.close(ready)
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill_writers(folder):
    rests, killed = 0, 0
    while killed < 8 or not rests:  # some were killed while they wrote
        with writer(folder):
            time.sleep(random.uniform(0, 0.1))
        killed += 1
        loaded = torch.load(folder / "last.ckpt", weights_only=True)
        assert loaded["number"] == loaded["same"] and (loaded["values"] == loaded["number"]).all()
        lines = (folder / "text.txt").read_text().splitlines()
        assert len(lines) == 20_000 and len(set(lines)) == 1
        rests += len(list(folder.glob("*.part-*")))


def read_beside_a_writer(folder):
    reads, numbers = 0, set()
    with writer(folder):
        while reads < 30 or len(numbers) < 2:
            loaded = torch.load(folder / "last.ckpt", weights_only=True)
            assert (loaded["values"] == loaded["number"]).all()
            numbers.add(loaded["number"])
            reads += 1


class Evil:
    """A pickle that would touch a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path):
    alone(kill_writers, tmp_path)
    assert {path.name.partition(".part-")[0] for path in tmp_path.iterdir()} == {"last.ckpt", "text.txt"}


def test_readers_see_the_old_file_or_the_new_one(tmp_path):
    alone(read_beside_a_writer, tmp_path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    marker, path = tmp_path / "called", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "evil": Evil(marker)}, path)
    with open(tmp_path / "plain.ckpt", "wb") as file:
        pickle.dump(Evil(marker), file)
    torch.save(nn.Linear(2, 2), tmp_path / "module.ckpt")  # a class of its own, though a harmless one
    for name in ("evil.ckpt", "plain.ckpt", "module.ckpt"):
        for load in (load_checkpoint, WholeFiles().load_checkpoint, partial(WholeFiles().load_checkpoint, weights_only=False)):
            with pytest.raises(RecipeError) as error:
                load(tmp_path / name)
            assert "\n" not in str(error.value) and name in str(error.value)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # so it would have been


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 cut off"])
def test_what_is_no_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(RecipeError, match=r"bad.ckpt cannot be loaded") as error:
        load_checkpoint(tmp_path / "bad.ckpt")
    assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match=r"no checkpoint .*none.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_a_truncated_checkpoint_is_one_line(tmp_path):
    torch.save({"values": torch.randn(10_000)}, tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    for size in (10, len(content) // 2, len(content) - 30):
        (tmp_path / "cut.ckpt").write_bytes(content[:size])
        with pytest.raises(RecipeError, match=r"cut.ckpt cannot be loaded"):
            load_checkpoint(tmp_path / "cut.ckpt")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OverflowError):
        WholeFiles().save_checkpoint({"bad": Unpicklable()}, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="cannot be written .*is there room on the disk"):
        write_text(tmp_path / "file" / "b.txt", "new")
    assert "\n" not in str(unwritable(Path("x"), RuntimeError("[enforce fail] PytorchStreamWriter\nframe #0")))


class Unpicklable:
    def __reduce__(self):
        raise OverflowError


def full_at(extra, step, fill):
    """A technique after whose step the disk is full."""

    class Fills(extra):
        def after_step(self, module, optimizer):
            if module.steps_done == step:
                fill()

    return Fills


def assert_failed_and_goes_on(folder, with_plugin, clear):
    assert folder.result["status"] == "failed" and "cannot be written" in folder.result["error"]
    assert load_checkpoint(folder.path / "checkpoints" / "last.ckpt")["global_step"] == 40
    assert load_checkpoint(folder.path / "checkpoints" / "best.ckpt")["global_step"] == 40
    assert not list(folder.path.rglob("*.part-*"))
    clear()
    with_plugin()
    assert folder.resume()["status"] == "finished"


def test_files_that_may_not_grow(folder, folders, with_plugin, extra):
    """A limit on the size of files fails like a full disk, without a disk."""
    words = ("model=mlp", "model.hidden=[300]", "max_epochs=3", "trainer.log_every_n_steps=1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with_plugin(full_at(extra, 60, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))))
    try:
        with pytest.raises(RecipeError, match=r"(best|last).ckpt cannot be written \(.*is there room on the disk") as error:
            folder.train(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert_failed_and_goes_on(folder, with_plugin, lambda: None)
    whole = folders("whole")
    whole.train(*words)
    assert folder.result["metrics"] == whole.result["metrics"] and folder.rows == whole.rows


def test_a_full_disk(folders, with_plugin, extra, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    folder, ballast = folders("disk/run"), disk / "ballast"

    def fill():
        with open(ballast, "wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(b"0" * 4096)
            file.truncate(max(0, file.tell() - 60_000))  # less than a checkpoint needs

    with_plugin(full_at(extra, 60, fill))
    try:
        with pytest.raises(RecipeError, match=r"cannot be written \(No space left on device\)"):
            folder.train("max_epochs=3", "model=mlp", "model.hidden=[300]")
        assert_failed_and_goes_on(folder, with_plugin, ballast.unlink)
    finally:
        subprocess.run(["umount", disk], check=True)


# ------------------------------------------------------------------ best and last


@pytest.mark.parametrize(
    ("larger", "score", "best", "by", "better"),
    [
        (True, 0.6, 0.5, 0.0, True),
        (True, 0.5, 0.5, 0.0, False),
        (True, 0.55, 0.5, 0.1, False),
        (False, 0.4, 0.5, 0.0, True),
        (False, 0.45, 0.5, 0.1, False),
        (False, float("nan"), 0.5, 0.0, False),
        (True, float("nan"), 0.5, 0.0, False),
    ],
)
def test_is_better(larger, score, best, by, better):
    assert is_better(larger, score, best, by) is better


class Scripted(BestAndLast):
    """Sees validation losses from a list."""

    def __init__(self, losses, *arguments, **further):
        super().__init__(*arguments, **further)
        self.losses = iter(losses)
        self.weights = {}

    def on_validation_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        pl_module.metrics["val/loss"] = next(self.losses)
        self.weights[trainer.global_step] = pl_module.model.weight.detach().clone()
        super().on_validation_end(trainer, pl_module)


def fit(keeper, steps, every=1, resume=None):
    split = Split(torch.randn(40, 3), {"": torch.randint(2, (40,))})
    module = RecipeModule(nn.Linear(3, 2), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    loader = StepLoader(split, 4, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            callbacks=[keeper],
            plugins=[WholeFiles()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=1,
            val_check_interval=every,
            check_val_every_n_epoch=None,
        )
        trainer.fit(module, loader, EvaluationLoader(split), ckpt_path=resume)
    return module


@pytest.mark.parametrize(
    ("losses", "best"),
    [([3, 1, 2, 1, 5], 2), ([float("nan"), 4, float("nan"), 3, 3], 4), ([float("nan")] * 5, 5)],
)
def test_the_best_weights_are_kept(tmp_path, losses, best):
    keeper = Scripted(losses, tmp_path, "val/loss")
    module = fit(keeper, 5)
    assert keeper.best_step == best and keeper.best_metrics["val/loss"] == pytest.approx(losses[best - 1], nan_ok=True)
    kept = load_checkpoint(keeper.best_path)
    assert kept["global_step"] == best and torch.equal(kept["state_dict"]["model.weight"], keeper.weights[best])
    last = load_checkpoint(keeper.last_path)
    assert last["global_step"] == 5 and torch.equal(last["state_dict"]["model.weight"], module.model.weight)


def test_the_latest_weights_are_kept_where_nothing_chooses(tmp_path):
    keeper = Scripted([3, 1, 2, 1, 5], tmp_path, "val/loss", latest=True)
    fit(keeper, 5)
    assert keeper.best_step == 5 and load_checkpoint(keeper.best_path)["global_step"] == 5


def test_a_resumed_run_knows_the_best(tmp_path):
    first = Scripted([3, 1, 2], tmp_path, "val/loss")
    fit(first, 3)
    second = Scripted([1.5, 0.5, 0.7], tmp_path, "val/loss")
    fit(second, 6, resume=first.last_path)
    assert second.best_step == 5 and list(second.weights) == [4, 5, 6]
    third = Scripted([0.6], tmp_path, "val/loss")
    fit(third, 7, resume=first.last_path)
    assert third.best_step == 5 and third.best_metrics["val/loss"] == 0.5


@pytest.mark.parametrize("every", [1, 3, 4, 10])
@pytest.mark.parametrize("saved", [1, 3, 9, 10, 11])
def test_validations_come_at_the_same_steps_after_a_resume(tmp_path, saved, every):
    """From a checkpoint between two steps, at an epoch's end (of ten steps) or beside a validation."""

    class Copies(Scripted):
        def on_train_batch_start(self, trainer, *arguments):
            super().on_train_batch_start(trainer, *arguments)
            if trainer.global_step == saved:
                (tmp_path / "copy.ckpt").write_bytes(self.last_path.read_bytes())

    whole = Copies([5.0] * 99, tmp_path, "val/loss", every_n_steps=saved)
    fit(whole, 25, every)
    resumed = Scripted([5.0] * 99, tmp_path, "val/loss")
    module = fit(resumed, 25, every, resume=tmp_path / "copy.ckpt")
    assert module.steps_done == 25
    assert list(resumed.weights) == [step for step in whole.weights if step > saved]


def test_an_unknown_monitor_names_the_others(tmp_path):
    with pytest.raises(RecipeError, match="no metric val/f1 .* must be one of val/acc, val/loss"):
        fit(BestAndLast(tmp_path, "val/f1"), 2)


def agreed(told):
    agreement = Agreement()
    return [*map(agreement.largest, told[dist.get_rank()]), agreement.last(), agreement.last()]


def test_processes_agree_one_step_later():
    told = [[random.randrange(5) for _ in range(9)] for _ in range(2)]
    assert on_ranks(2, agreed, told) == [[0, *map(max, *told), 0]] * 2
