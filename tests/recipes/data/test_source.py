"""Samples that stay in a file are those in memory, bit for bit; files that are larger than the memory train."""

import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.data import memory, stored
from recipes.data.base import Data
from recipes.data.fetching import worker_lost
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.npz import NpzData
from recipes.data.source import PIECE, Chosen, Source, ranges
from recipes.data.split import Split, fingerprint, pieces
from recipes.data.stored import StoredArray
from recipes.launch.memory import kilobytes
from tests.command import ROOT, command

N = 60
KINDS = {
    "bytes": np.random.randint(0, 256, (N, 6, 5), dtype=np.uint8),
    "bytes, channels last": np.random.randint(0, 256, (N, 6, 5, 3), dtype=np.uint8),
    "images of floats": np.random.rand(N, 3, 6, 5),
    "features": np.random.randn(N, 7),
    "features, 32 bits": np.random.randn(N, 7).astype(np.float32),
    "features, whole": np.random.randint(-9, 9, (N, 7)),
    "features, truth values": np.random.rand(N, 7) < 0.5,
    "features, other end first": np.random.randn(N, 7).astype(">f8"),
}


def write(folder, form, **arrays):
    """An npz file, or a folder of npy files."""
    if form == "npz":
        np.savez(folder / "own.npz", **arrays)
        return folder / "own.npz"
    (folder / "own").mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / "own" / f"{name}.npy", array)
    return folder / "own"


def data_of(path, **arguments):
    data = NpzData(str(path), **arguments)
    data.setup()
    return data


def same(first, second):
    return torch.equal(first[0], second[0]) and all(torch.equal(first[1][task], second[1][task]) for task in first[1])


# ------------------------------------------------------------------ in place


@pytest.mark.parametrize("form", ["npz", "folder"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_place_is_as_in_memory(tmp_path, form, kind):
    x, of_test = KINDS[kind], KINDS[kind][::-1][:20]
    y = np.array(["b", "a", "c"] * 20)
    for arrays in ({"x": x, "y": y}, {"x_train": x, "y_train": y, "x_test": np.ascontiguousarray(of_test), "y_test": y[:20]}):
        path = write(tmp_path, form, **arrays)
        whole, placed = data_of(path, in_memory=True), data_of(path, in_memory=False)
        assert whole.content == placed.content and whole.fingerprint == placed.fingerprint
        assert whole.shape == placed.shape and whole.tasks == placed.tasks
        assert torch.equal(*(torch.cat(list(data.setting(0).training_inputs())) for data in (whole, placed)))
        assert whole.setting(0).extremes == placed.setting(0).extremes
        for name, split in whole.splits.items():
            other = placed.splits[name]
            assert isinstance(split, Split) and not isinstance(other, Split) and len(split) == len(other)
            index = torch.randint(len(split), (50,))  # in any order, some several times
            for chosen in (index, index.sort().values, torch.arange(len(split)), index[:0], index[:1]):
                assert same(split.fetch(chosen), other.fetch(chosen))
            assert same(split.between(1, 4), other.between(1, 4))
            assert same(split[index].between(0, 50), other[index].between(0, 50))
            assert same(split[2:5].between(0, 3), other[2:5].between(0, 3))
        both = [data.splits["train"] + data.splits["val"] for data in (whole, placed)]
        assert same(*(split.between(0, len(split)) for split in both))
        for (first, second), _ in zip(
            zip(StepLoader(both[0], 8, 0), StepLoader(both[1], 8, 0), strict=True), range(3), strict=False
        ):
            assert same(first, second)
        for first, second in zip(*(EvaluationLoader(split, 7) for split in both), strict=True):
            assert same(first, second)


def test_what_lies_in_memory_is_what_it_was(tmp_path):
    """Runs of before know their data by this hash."""
    split = Split(torch.arange(12.0).view(6, 2), {"": torch.arange(6) % 2})
    assert fingerprint({"train": split}) == "5aed44ca04b47dbe2d8297ff37eba3ba"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.where(np.random.rand(N, 7) > 0.9, np.nan, 1.0),
            r"x holds \d+ values that are NaN or infinite: clean the data first",
        ),
        (np.array([[1.0, 1e300]] * N), f"x holds {N} values that are NaN or infinite"),
        (np.random.rand(N, 4, 4) * 255, "holds images from .* to .*: give bytes, or numbers between 0 and 1"),
        (np.random.rand(N, 2, 2, 2, 2), r"x must be images \(samples, height, width"),
        (np.array(["a"] * N), "x must be numbers"),
        (np.zeros((N - 1, 3)), "arrays differ in length: x has 59, y has 60"),
        (np.zeros((N, 0)), "x must be at least one sample"),
    ],
)
def test_bad_values_in_place_are_told_as_in_memory(tmp_path, x, message):
    path = write(tmp_path, "npz", x=x, y=np.arange(N) % 2)
    told = []
    for in_memory in (True, False):
        with pytest.raises(RecipeError, match=message) as error:
            data_of(path, in_memory=in_memory)
        told.append(str(error.value))
    assert told[0] == told[1] and "\n" not in told[0]


def test_what_cannot_stay_in_place_is_loaded_or_told(tmp_path):
    x, y = np.random.randn(N, 3), np.arange(N) % 2
    np.savez_compressed(tmp_path / "small.npz", x=x, y=y)
    by_columns = write(tmp_path, "folder", x=np.asfortranarray(x), y=y)
    for path, reason in ((tmp_path / "small.npz", "it is compressed: write the file with numpy.savez"), (by_columns, "column")):
        assert isinstance(data_of(path).splits["train"], Split)
        with pytest.raises(RecipeError, match=f"data.in_memory=false: .* must be read whole: .*{reason}"):
            data_of(path, in_memory=False)


def test_a_damaged_file_is_told_as_in_memory(tmp_path):
    path = write(tmp_path, "npz", x=np.random.randn(N, 30), y=np.arange(N) % 2)
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    for in_memory in (True, False):
        with pytest.raises(RecipeError, match="own.npz is damaged: Bad CRC-32 for file 'x.npy'"):
            data_of(path, in_memory=in_memory)


@pytest.mark.parametrize(
    "pread", [None, lambda file, length, at: os.pread(file, (length + 1) // 2, at)], ids=["none", "halves"]
)
@pytest.mark.parametrize("rows", [[3, 50, 7], [3, 4, 5, 9], list(np.random.permutation(N)), [7, 7, 7], [1]], ids=len)
def test_a_system_that_reads_in_parts_or_without_a_place_reads_the_same(tmp_path, monkeypatch, pread, rows):
    x = np.random.randn(N, 30)
    array = StoredArray(write(tmp_path, "npz", x=x, y=np.arange(N) % 2), "x.npy")
    assert np.array_equal(array.rows(np.array(rows)), x[rows])
    monkeypatch.setattr(stored, "_pread", pread)
    assert np.array_equal(array.rows(np.array(rows)), x[rows])


def test_a_file_that_is_cut_short_on_the_way(tmp_path):
    path = write(tmp_path, "folder", x=np.random.randn(N, 30), y=np.arange(N) % 2)
    split = data_of(path, in_memory=False).splits["train"]
    os.truncate(path / "x.npy", 500)
    with pytest.raises(RecipeError, match="x.npy has become shorter since it was opened"):
        split.fetch(torch.arange(len(split)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_memory": "yes"}, "data.in_memory must be true, false or null, got 'yes'"),
        ({"workers": -1}, "data.workers must be a whole number ≥ 0, got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RecipeError, match=message):
        NpzData("own.npz", **arguments)


def test_memory_decides_where_it_is_not_said(tmp_path, monkeypatch):
    path = write(tmp_path, "npz", x=np.random.randint(0, 256, (N, 10, 10), dtype=np.uint8), y=np.arange(N) % 2)
    for free, kind in ((3 * 100 * N, Split), (3 * 100 * N - 1, Chosen)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        data = data_of(path)
        assert type(data.splits["train"]) is kind and bool(data.splits["train"].remark) == (kind is Chosen)
    with pytest.raises(RecipeError, match="data.batch_size=full takes all samples .* type data.in_memory=true to try"):
        data_of(path, batch_size="full")
    assert len(data_of(path, batch_size="full", in_memory=False).splits["train"]) == 43


# ------------------------------------------------------------------ what memory there is


def test_limits_of_the_process():
    assert 0 < memory.available() < 2**50
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = kilobytes(Path("/proc/self/status"), "VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (int(size) + 10**8, before[1]))
    try:
        assert memory.available() <= 10**8 and not memory.fits(5 * 10**7)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# ------------------------------------------------------------------ a source of one's own


class Squares(Source):
    """Computed when they are asked for."""

    def __init__(self, workers=0, broken=None):
        self.workers, self.broken = workers, broken

    def __len__(self):
        return 50

    @property
    def labels(self):
        return {"": torch.arange(50) % 2}

    def fetch(self, index):
        if self.broken is not None and self.broken in index:
            raise RecipeError(f"sample {self.broken} cannot be read")
        return index.float().square().view(-1, 1), {"": index % 2}


class Own(Data):
    def __init__(self, workers=0):
        super().__init__()
        self.workers = workers

    def load(self):
        return Squares(self.workers), None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_of_ones_own_needs_three_methods(workers):
    data = Own(workers)
    data.setup()
    assert data.shape == (1,) and data.tasks[0].outputs == 2
    assert sorted(len(split) for split in data.splits.values()) == [4, 10, 36]
    found = torch.cat([x for x, _ in StepLoader(data.splits["train"] + data.splits["val"], 10, 0)])
    assert len(found.unique()) == 40
    assert len(torch.cat(list(pieces(data.splits["train"])))) == 36
    assert data.content == fingerprint({"": Split(*Squares().between(0, 50))})


def test_pieces_of_large_samples_are_small():
    class Large(Squares):
        shape = (3, 500, 1000)

    assert ranges(Squares()) == [(0, 50)] and PIECE == 4096
    assert max(stop - start for start, stop in ranges(Large())) == 2


# ------------------------------------------------------------------ worker processes


def children():
    return {int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def gone(numbers, seconds=30.0):
    """Whether processes end; those that nobody has waited for have ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = [Path(f"/proc/{number}/stat") for number in numbers if Path(f"/proc/{number}").exists()]
        if all(state.read_text().rpartition(")")[2].split()[0] == "Z" for state in states):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_batch_and_no_draw(tmp_path, workers):
    path = write(tmp_path, "npz", x=np.random.rand(N, 8, 8), y=np.arange(N) % 3)
    plain, ahead = (data_of(path, in_memory=False, workers=count).splits["train"] for count in (0, workers))
    before, state = children(), torch.get_rng_state()
    for position in (0, 3, 9):
        batches = [list(StepLoader(split, 8, 5, position=lambda at=position: at)) for split in (plain, ahead)]
        assert len(batches[0]) == len(batches[1]) and all(map(same, *batches))
    assert all(map(same, EvaluationLoader(plain, 7), EvaluationLoader(ahead, 7)))
    assert torch.equal(state, torch.get_rng_state())
    assert gone(children() - before)


def test_workers_end_with_the_iterator_that_is_left():
    before = children()
    batches = iter(StepLoader(Squares(2), 5, 0))
    next(batches)
    started = children() - before
    assert len(started) == 2
    for number in started:
        # Ctrl-C or the end of a job reaches all processes, and is the trainer's affair
        subprocess.run(["sh", "-c", f"kill -INT {number}; kill -HUP {number}; kill -TERM {number}"], check=True)
    next(batches)
    del batches
    assert gone(started)


def test_a_sample_that_a_worker_cannot_read_is_one_line():
    with pytest.raises(RecipeError, match="^sample 7 cannot be read$"):
        list(StepLoader(Squares(2, broken=7), 5, 0))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line():
    before, batches = children(), iter(StepLoader(Squares(1), 1, 0))
    next(batches)
    (worker,) = children() - before
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(RecipeError, match=r"a process that reads the data has ended .*data.workers=0") as error:
        list(batches)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error", [EOFError(), ConnectionResetError(104, "reset"), RuntimeError("a worker\nis gone"), OSError(" ")]
)
def test_a_lost_worker_is_one_line_whatever_was_lost_with_it(error):
    told = str(worker_lost(error))
    assert re.fullmatch(r"a process that reads the data has ended \(\S.*\): .* type data.workers=0 to read without", told)


TRAINS = """
import os, sys, time
sys.path.insert(0, {root!r})
from recipes.data.loaders import StepLoader
from tests.recipes.data.test_source import Squares, children
batches = iter(StepLoader(Squares(2), 5, 0))
next(batches)
print(*children(), flush=True)
{then}
"""


@pytest.mark.slow
@pytest.mark.parametrize("then", ["time.sleep(600)", "sys.exit(batches and 3)", "os._exit(3)"])
def test_workers_end_with_the_process_that_trains(then):
    """Also where it is killed, or ends with the iterator in its hands."""
    code = TRAINS.format(root=str(ROOT), then=then)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        started = [int(number) for number in process.stdout.readline().split()]
        if "sleep" in then:
            process.kill()
        assert len(started) == 2 and process.wait(60) != 0
    assert gone(started)


@pytest.mark.slow
def test_a_source_can_be_sent_to_another_process(tmp_path):
    """Where processes are not forked."""
    split = data_of(write(tmp_path, "npz", x=np.random.rand(N, 4), y=np.arange(N) % 3), in_memory=False).splits["train"]
    first = split.between(0, 5)
    assert same(pickle.loads(pickle.dumps(split)).between(0, 5), first)


# ------------------------------------------------------------------ larger than the memory

ROOM = 250_000_000  # bytes beyond what the libraries take
WORDS = ("data=npz", "model=linear", "max_steps=3", "logger=[]", "trainer.progress=false", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """400 MB of features in a file."""
    folder = tmp_path_factory.mktemp("large")
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (100_000, 1024))
    for start in range(0, len(x), 10_000):
        x[start : start + 10_000] = np.random.default_rng(start).standard_normal((10_000, 1024), dtype=np.float32)
    np.save(folder / "y.npy", (x[:, 0] > 0).astype(int))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("trainer=ddp", "trainer.devices=2"), ("+sampling=balanced", "data.workers=1")], ids=len)
def test_data_larger_than_the_memory_train(large, tmp_path, words):
    done = command("tests/limited.py", *WORDS, f"data.path={large}", *words, cwd=tmp_path, ROOM=str(ROOM))
    assert done.returncode == 0, done.stderr
    assert re.search(r"data: 0.38 GiB stay in .*x.npy|data: 0.38 GiB stay in", done.stdout)


@pytest.mark.slow
def test_there_is_no_room_to_load_them(large, tmp_path):
    done = command("tests/limited.py", *WORDS, f"data.path={large}", "data.in_memory=true", cwd=tmp_path, ROOM=str(ROOM))
    assert done.returncode == 2 and "out of memory" in done.stderr and done.stderr.count("\n") == 1
