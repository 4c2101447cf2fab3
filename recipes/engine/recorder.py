"""The numbers of a training on their way to the loggers: metrics, and what techniques record in single steps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from plugins.base import Batch, Setting
from recipes.engine.logger import RunLogger
from recipes.engine.metrics import Histogram, Means
from recipes.engine.objective import total_of
from recipes.engine.parts import Whole

log = logging.getLogger("recipes")


class Recorder:
    """What is to be logged, and what was.

    Attributes:
        train: loss and accuracy since the last validation.
        logged: the step of the last numbers given to loggers, and the names of all of it.
    """

    def __init__(self, module: Whole) -> None:
        self.module = module
        self.logged: tuple[int, list[str]] = (-1, [])
        self.train, self._window = Means(), Means()
        self._before = Means()  # of the training, without the step that is being made
        self._records: dict[str, Tensor | float] = {}
        self._histograms: dict[str, Histogram] = {}
        self._at_once: set[str] = set()  # names of what is to be logged after this step
        self._share: float | None = 1.0  # of the step's batch that is at work; None: it has been recorded already
        self._of_parts: dict[str, tuple[Tensor | float, float]] = {}  # weighted sums over the parts so far, and their weights

    # ------------------------------------------------------------------ a step

    def begin_step(self) -> None:
        """A new step: nothing of its parts has been recorded."""
        self._of_parts, self._share, self._before = {}, 1.0, self.train.copy()

    def weigh(self, share: float | None) -> None:
        """What is recorded from now on is of this share of the step's batch; None: of a pass that does not count."""
        self._share = share

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Nothing is recorded within: a look at the loss beside the passes that are trained on."""
        share, self._share = self._share, None
        try:
            yield
        finally:
            self._share = share

    def record(self, name: str, value: Tensor | float, at_once: bool = False) -> None:
        """Remember a number until the next logging step; of the first pass of a step, and of its parts the mean."""
        if self._share is None:
            return
        value = value.detach() if isinstance(value, Tensor) else value
        if self._share != 1:
            total, weight = self._of_parts.get(name, (0.0, 0.0))
            self._of_parts[name] = total, weight = total + value * self._share, weight + self._share
            value = total / weight
        self._records[name] = value
        if at_once:
            self._at_once.add(name)

    def record_histogram(self, name: str, values: Tensor, at_once: bool = False) -> None:
        """Remember the histogram of values until the next logging step."""
        if self._share is None:
            return
        self._histograms[name] = Histogram.of(values)
        if at_once:
            self._at_once.add(name)

    def forget_step(self) -> None:
        """Leave the last step out of the training metrics: it was undone."""
        self.train = self._before

    def end_step(self, logs: bool) -> None:
        """Log what is due after a step: all, or what is measured at an interval of its own."""
        if logs:
            self._log_step()
        elif self._at_once:
            self._log_at_once()
        self._at_once = set()

    def end_training(self) -> None:
        """Log the last step, whatever the interval: a training that is shorter would tell nothing of a technique."""
        module = self.module
        if not module.trainer.loggers or not module.steps_done:
            return
        at, names = self.logged
        if at != self._step or "lr" not in names:
            self._log_step()
        else:  # what came after the last row
            self._at_once = {*self._records, *self._histograms}
            self._log_at_once()

    # ------------------------------------------------------------------ metrics

    def publish(self, metrics: Mapping[str, float]) -> None:
        """Give metrics to the loggers and, under the same names, to callbacks that monitor."""
        module = self.module
        module.metrics.update(metrics)
        numbers = " ".join(f"{name} {value:.6g}" for name, value in metrics.items())
        log.info("step %d: %s", self._step, numbers)
        monitored = {name: value for name, value in metrics.items() if name != "epoch"}
        ours = any(isinstance(logger, RunLogger) for logger in module.trainer.loggers)
        # loggers of a run get steps that go on over phases; anybody else's are left to Lightning
        with warnings.catch_warnings():
            # with `logger` Lightning also returns them from trainer.test; that there is none needs no warning
            warnings.filterwarnings("ignore", message=".*no logger configured")
            module.log_dict(monitored, logger=not ours, sync_dist=module.trainer.world_size > 1)
        if ours:
            self.write(metrics)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Give metrics to the loggers, at the step they belong to."""
        step = self._step
        self.logged = (step, [*(self.logged[1] if self.logged[0] == step else []), *metrics])
        for logger in self.module.trainer.loggers:
            logger.log_metrics(dict(metrics), step=step)

    def running(self) -> dict[str, float]:
        """Loss and accuracy since the last validation, on this rank; reads from the device."""
        return self.train.since(Means())

    def take_training(self) -> dict[str, float]:
        """Loss and accuracy since the last validation, over all ranks; they begin anew. Empty without a training."""
        if not self.train.counts:
            return {}
        found = self.train.compute()
        self.train, self._window = Means(), Means()
        return found

    # ------------------------------------------------------------------ to the loggers

    @property
    def _step(self) -> int:
        """The step that loggers are told: it goes on over phases."""
        return self.module.steps_done + int(self.module.phase["steps"])

    def _log_step(self) -> None:
        if self.module.trainer.loggers:
            now = self.train.since(self._window)
            metrics = {f"step/{name}": value for name, value in now.items()}
            metrics["lr"] = float(self.module.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
            metrics |= {name: float(value) for name, value in self._records.items()}
            self.write(metrics)
            self._log_histograms(self._histograms)
        self._window = self.train.copy()
        self._records, self._histograms = {}, {}

    def _log_at_once(self) -> None:
        """Log, between two logging steps, what is measured at an interval of its own."""
        records = {name: float(self._records.pop(name)) for name in sorted(self._at_once & self._records.keys())}
        histograms = {name: self._histograms.pop(name) for name in sorted(self._at_once & self._histograms.keys())}
        if self.module.trainer.loggers:
            if records:
                self.write(records)
            self._log_histograms(histograms)

    def _log_histograms(self, histograms: Mapping[str, Histogram]) -> None:
        for logger in self.module.trainer.loggers:
            if histograms and hasattr(logger, "log_histograms"):
                logger.log_histograms(histograms, step=self._step)

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to log what an uninterrupted one would."""
        return {
            "logged": list(self.logged),
            "train": self.train.state_dict(),
            "window": self._window.state_dict(),
            "records": {name: float(value) for name, value in self._records.items()},
            "histograms": {name: histogram.state_dict() for name, histogram in self._histograms.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], rank: int, processes: int) -> None:
        """Take up where :meth:`state_dict` was called; each of several processes its share of the sums."""
        self.logged = tuple(state.get("logged", self.logged))  # older checkpoints have none
        self.train, self._window = (Means.from_state(state[name], rank, processes) for name in ("train", "window"))
        self._records = dict(state["records"])
        histograms = state.get("histograms", {})  # older checkpoints have none
        self._histograms = {name: Histogram.from_state(kept) for name, kept in histograms.items()}


def add_metrics(
    means: Means, setting: Setting, outputs: Mapping[str, Tensor], batch: Batch, losses: Mapping[str, Tensor], module: Whole
) -> None:
    """Count the losses of a batch, and how many labels are right, where there are some; what a loss ignores does not count.

    Args:
        means: to which they are added.
        setting: of the run.
        outputs: of the model, by task.
        batch: the samples.
        losses: as they are reported, by task.
        module: knows what these are means of.
    """
    weighted, kept = module.task_losses.counts(batch.labels), module.task_losses.kept(batch.labels)
    tasks = [task for task in setting.tasks if task.kind != "regression"]
    uneven = bool(weighted) or setting.has_maps or any(task.kind == "multilabel" for task in tasks)
    apart = len(losses) > 1 and uneven  # the tasks' means are not of the same samples
    if apart:
        for task, loss in losses.items():
            means.add("loss", loss, weighted.get(task, len(batch)), part=task)
    else:
        means.add("loss", total_of(losses), next(iter(weighted.values()), len(batch)))
    for each in tasks:
        labels = batch.labels[each.name]
        hits, samples = each.hits(outputs[each.name], labels).sum(), kept.get(each.name, labels.numel())
        if len(setting.tasks) > 1:
            means.add(f"{each.name}/acc", hits, samples, summed=True)
        if apart:
            means.add("acc", hits / len(tasks), samples, summed=True, part=each.name)
        else:
            count = samples if each is tasks[0] else 0
            means.add("acc", hits / len(tasks) if len(tasks) > 1 else hits, count, summed=True)
