"""Too little memory is told as such, whatever was being done."""

import errno
import re
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from plugins.base import RecipeError
from recipes.config.errors import out_of_memory
from recipes.data.npz import read_arrays
from recipes.run import memory
from tests.command import command

CONFIG = {"data": {"batch_size": 32}, "trainer": {"accumulate_grad_batches": 1, "precision": "32-true"}}


def real_errors():
    """What the libraries say."""
    for ask in (lambda: torch.empty(10**14), lambda: np.empty(10**15), lambda: bytearray(10**15)):
        try:
            ask()
        except Exception as error:
            yield error


SAID = [
    *real_errors(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", SAID, ids=[f"{type(error).__name__}-{number}" for number, error in enumerate(SAID)])
def test_it_is_found_behind_what_was_made_of_it(error):
    assert out_of_memory(error) is error
    for cause in (None, error):
        with pytest.raises(memory.OutOfMemory) as told, memory.told(CONFIG):
            misread(error, cause)
        assert str(told.value).startswith("out of memory") and "data.batch_size=16" in str(told.value)


def misread(error, cause):
    """As code does that takes any error for a damaged file."""
    try:
        raise error
    except Exception:
        raise RecipeError("the file is damaged") from cause


@pytest.mark.parametrize("error", [RecipeError("x must be 1"), RuntimeError("shapes do not fit"), OSError(errno.ENOENT, "no")])
def test_other_errors_stay_what_they_are(error):
    assert out_of_memory(error) is None
    with pytest.raises(type(error)) as found, memory.told(CONFIG):
        raise error
    assert found.value is error


def test_a_model_that_is_too_large(tmp_path):
    done = command("train.py", "model.hidden=[3000000,3000000]", "logger=[]", cwd=tmp_path, forked=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(r"error: out of memory, .* were asked for: try data.batch_size=16", done.stderr)
    assert "Traceback" not in done.stdout and not list(tmp_path.rglob("*.ckpt"))


def test_data_that_are_too_large_are_not_damaged(tmp_path):
    path = tmp_path / "large.npz"
    np.savez_compressed(path, x=np.zeros((40, 10**6), np.float32), y=np.arange(40) % 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 50_000_000, before[1]))
    try:
        with pytest.raises(RecipeError, match=r"out of memory: x, y of .*large.npz take 0.1 GiB, and 0.0 GiB are free"):
            read_arrays(path, ["x", "y"])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert read_arrays(path, ["x"])["x"].shape == (40, 10**6)


def test_a_head_that_tells_of_more_than_the_file_has_is_damaged(tmp_path):
    path = tmp_path / "lies.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        head = {"descr": "<f8", "fortran_order": False, "shape": (4, 2 * 10**14)}
        np.lib.format.write_array_header_1_0(file, head)
        file.write(bytes(64))
    with pytest.raises(RecipeError, match="is damaged") as error, memory.told(CONFIG):
        read_arrays(path, ["x"])
    assert out_of_memory(error.value) is None
