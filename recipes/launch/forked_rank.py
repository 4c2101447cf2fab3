"""A rank as a fork of a warm job, which has imported all that it needs and done nothing else. Nothing here imports torch."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from recipes.launch import failures, parent
from recipes.launch import slurm_job as slurm
from recipes.launch.identity import here


class ForkedRank:
    """What `subprocess.Popen` is for a rank that starts by itself.

    Signals that ask for an end are to be blocked when it is made, and unblocked by `train`: until then it has the job's handlers.

    Args:
        train: what it does.
        environment: all of its own.
        others: descriptors that are none of its business.
    """

    def __init__(self, train: Callable[[], None], environment: Mapping[str, str], others: Sequence[int]) -> None:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_become, args=(train, dict(environment), others))
        self._process.start()

    def poll(self) -> int | None:
        """Its exit code; None until it has ended."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to it."""
        if self.poll() is None and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self) -> None:
        """Return once it has ended."""
        self._process.join()


def _become(train: Callable[[], None], environment: Mapping[str, str], others: Sequence[int]) -> None:
    atexit._clear()  # of the job
    os.setsid()  # Ctrl-C comes from the job only
    for descriptor in others:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    parent.find()
    here.cache_clear()
    slurm.received.clear()
    failures.BEGAN = time.time()
    for name in slurm.ASKING:
        number = getattr(signal, name)
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    try:
        train()
    finally:
        atexit._run_exitfuncs()
