"""Batches of a source one after the other, fetched ahead by worker processes where it asks for some."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pickle import UnpicklingError
from threading import Thread, current_thread, main_thread
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from plugins.errors import RecipeError
from plugins.inputs import each, some
from recipes.config.errors import first_line, of_own_code, own_place
from recipes.data.source import Sample, Source
from recipes.launch.parent import end_with

AHEAD = 2  # batches that each worker has ready
MOMENT = 0.5  # seconds in which the end of a process is heard of

Place = Tensor | range


def fetched(source: Source, places: Iterable[Place], device: torch.device) -> Iterator[Sample]:
    """The samples at `places`, one batch after the other, in this order, on a device.

    Workers change nothing but the time it takes: which samples a batch has is decided here, and whatever is drawn for them is drawn where
    they are used. They end with the iterator, and with this process however it ends.

    Args:
        source: of which.
        places: indices (samples,) on the source's device, or ranges, one a batch.
        device: where they go to; those of a range in memory are views.

    Raises:
        RecipeError: a sample cannot be read, or a worker was killed.
    """
    if not source.workers:
        for place in places:
            yield moved(take(source, place), device)
        return
    loader: DataLoader[Any] = DataLoader(
        Batches(source),
        sampler=places,
        batch_size=None,
        num_workers=source.workers,
        prefetch_factor=AHEAD,
        collate_fn=as_it_is,
        worker_init_fn=partial(start_worker, os.getpid()),
        multiprocessing_context="fork" if sys.platform == "linux" else None,
        generator=torch.Generator(),  # or it would draw from the global one
    )
    others = set(active_children())
    with held_back(), child_ends_unheard():
        batches = iter(loader)
    workers = set(active_children()) - others
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError, UnpicklingError) as error:  # most: it ended in handing a batch over
            if "DataLoader worker" in str(error) or isinstance(error, ConnectionError | EOFError) or one_ends(workers):
                raise worker_lost(error) from error
            raise
        if isinstance(batch, RecipeError):
            raise batch
        yield moved(batch, device)


def one_ends(workers: Iterable[BaseProcess]) -> bool:
    """Whether one of these processes has ended, or does so in a moment."""
    return bool(wait([worker.sentinel for worker in workers], MOMENT))


def worker_lost(error: BaseException) -> RecipeError:
    """What is told where a worker has ended; an error may have no words of its own."""
    return RecipeError(
        f"a process that reads the data has ended ({first_line(error)}): is there memory for it, and room in /dev/shm? "
        f"type data.workers=0 to read without"
    )


def take(source: Source, place: Place) -> Sample:
    """A batch."""
    try:
        return source.between(place.start, place.stop) if isinstance(place, range) else source.fetch(place)
    except (RecipeError, MemoryError):
        raise
    except Exception as error:
        if not own_place(error):
            raise
        raise RecipeError(f"samples cannot be fetched: {of_own_code(error)}") from None


def moved(batch: Sample, device: torch.device) -> Sample:
    """A batch on a device."""
    x, targets = batch
    if some(x).device == device:
        return batch
    return each(x, lambda x: x.to(device)), {task: target.to(device) for task, target in targets.items()}


class Batches(Dataset[Any]):
    """A source as a data set of torch's, whose items are batches."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, place: Any) -> Any:
        try:
            return take(self.source, place)
        except RecipeError as error:  # on its way it would become a traceback of many lines
            return error


def as_it_is(batch: Any) -> Any:
    """Nothing is to be put together."""
    return batch


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back: a process that is forked meanwhile does so for good, this one gets them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def child_ends_unheard() -> Iterator[None]:
    """Leave the signal of a process that has ended as it is handled.

    torch would raise an error wherever this process is just then, in the middle of a step or of a file; it asks for its workers, too,
    each time that it waits for a batch, which is where the error can be told.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if current_thread() is main_thread() and signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)


def start_worker(parent: int, number: int) -> None:
    """End a worker with the process that trains, however that ends, and by no signal but its.

    Signals for all processes of a terminal or a job are meant for that one: it saves its state, and then ends the workers.

    Args:
        parent: the process that trains.
        number: of the worker.
    """
    if hasattr(signal, "sigwaitinfo"):
        Thread(target=end_on_request, args=(parent,), daemon=True).start()
    end_with(parent)


def end_on_request(parent: int) -> None:
    """End when the process that trains sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
