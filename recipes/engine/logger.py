"""Where a module's numbers go: the protocol of loggers, and one that waits until a run has begun."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger

from recipes.engine.metrics import Histogram


class RunLogger(Logger):
    """A Lightning logger that belongs to one run folder and ends with it."""

    @classmethod
    def prepare(cls, **settings: Any) -> None:
        """Begin aside what takes long to start, while a run is built; whatever goes wrong with it is told by the logger once it is made.

        Args:
            settings: the logger's own.
        """

    def facts(self) -> dict[str, Any]:
        """What `result.json` says about where the numbers went."""
        return {}

    def log_test(self, tasks: Mapping[str, Any], step: int) -> None:
        """What the test has counted after a step, by task: as in `recipes/store/tested.py`, and of classes `classes` with the `matrix` of counts."""

    def finish(self, result: Mapping[str, Any]) -> str | None:
        """End the logging of a run with this result; returns a line for the user, such as how to sync."""
        return None

    def rewind(self, step: int, logged: Collection[str] | None = None) -> None:
        """Forget what was logged after `step`, from which the run goes on; at `step` itself, all but the names in `logged`."""


class Deferred(RunLogger):
    """Keeps what is logged until there are loggers, which write files and start services as soon as they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.loggers: list[RunLogger] = []
        self._kept: list[Callable[[Any], object]] | None = []

    def start(self, loggers: Sequence[RunLogger], step: int | None = None, logged: Collection[str] | None = None) -> None:
        """Hand on what was logged, and from now on all; with a step the loggers first rewind to it."""
        self.loggers = list(loggers)
        if step is not None:
            for logger in self.loggers:
                logger.rewind(step, logged)
        kept, self._kept = self._kept or [], None
        for log_it in kept:
            self._each(log_it)

    def _each(self, log_it: Callable[[Any], object]) -> None:
        if self._kept is not None:
            self._kept.append(log_it)
        for logger in self.loggers:
            log_it(logger)

    @property
    def name(self) -> str:
        """Lightning wants one."""
        return "recipes"

    @property
    def version(self) -> str:
        """Lightning wants one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config went along when the loggers were made."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        self._each(lambda logger: logger.log_metrics(metrics, step))

    def log_histograms(self, histograms: Mapping[str, Histogram], step: int) -> None:
        """Log histograms where that is known."""
        self._each(lambda logger: hasattr(logger, "log_histograms") and logger.log_histograms(histograms, step))

    def log_test(self, tasks: Mapping[str, Any], step: int) -> None:
        """Log what the test has counted."""
        self._each(lambda logger: logger.log_test(tasks, step))

    def save(self) -> None:
        """Write what is still in memory."""
        for logger in self.loggers:
            logger.save()

    def finalize(self, status: str) -> None:
        """Lightning's call at the end of a fit."""
        for logger in self.loggers:
            logger.finalize(status)
