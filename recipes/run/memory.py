"""Not enough memory: told as what it is, with what to try, whatever was being done. Nothing here imports torch.

Each library has its own words for it, and who reads a file or builds a model takes any of its errors for damage or for samples
that are too small. So it is looked for behind an error, where a run ends.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recipes.config.errors import one_line, out_of_memory

ASKED_FOR = re.compile(r"allocate ([\d.]+ ?(?:bytes|[KMGTPE]i?B))")
DATA = ("recipes/data/", "recipes\\data\\")


class OutOfMemory(Exception):
    """There was not enough memory; the message is for the user."""


@contextmanager
def told(config: Mapping[str, Any]) -> Iterator[None]:
    """:class:`OutOfMemory` in the place of any error that comes from a lack of it.

    Args:
        config: of the run.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or (cause := out_of_memory(error)) is None:
            raise
        files = [frame.filename for each in (error, cause) for frame in traceback.extract_tb(each.__traceback__)]
        reading = any(place in name for name in files for place in DATA) and not any("module.py" in name for name in files)
        raise OutOfMemory(in_words(cause, config, reading)) from error


def in_words(cause: BaseException, config: Mapping[str, Any], reading: bool) -> str:
    """What lacked, and what to try.

    Args:
        cause: the library's error.
        config: of the run.
        reading: whether it was when the data was read.
    """
    asked = ASKED_FOR.search(one_line(cause))
    device = " on the GPU" if "CUDA" in str(cause) else ""
    head = f"out of memory{device}" + (f", {asked[1]} more were asked for" if asked else "")
    if reading:
        return f"{head}: the data does not fit; take fewer samples or features, or leave data.in_memory out, so that it is read as it is needed, an npz file if it is not compressed (numpy.savez)"
    size, parts = config["data"].get("batch_size"), config["trainer"].get("accumulate_grad_batches", 1)
    smaller = size // 2 if isinstance(size, int) and size > 1 else 64
    tries = [f"data.batch_size={smaller}"]
    if isinstance(size, int) and smaller * parts * 2 == size * parts:  # as many samples a step
        tries.append(f"data.batch_size={smaller} trainer.accumulate_grad_batches={2 * parts} for steps as large as now")
    tries.append("a smaller model")
    if device and config["trainer"].get("precision") == "32-true":
        tries.append("trainer.precision=bf16-mixed")
    return f"{head}: try {', or '.join(tries)}"
