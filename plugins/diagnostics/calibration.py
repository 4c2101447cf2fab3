"""Whether the probabilities that a model predicts are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from torch import Tensor

from plugins.base import Batch, Module, Panel, Plugin, Refusal, Selection, Stage, declare
from plugins.counting import Reliability, outcomes
from plugins.drawing import Points

Bins = Mapping[str, Sequence[float]]  # of each the number of samples, of those that are right, and the sum of the probabilities


def errors(bins: Bins) -> dict[str, float]:
    """ECE = Σ_b n_b/n · |acc(b) − conf(b)|, MCE the largest |acc(b) − conf(b)|, and mean probability − accuracy; nothing of no prediction."""
    held = [(n, right, total) for n, right, total in zip(bins["samples"], bins["right"], bins["sums"], strict=True) if n]
    if not held:
        return {}
    samples = sum(n for n, _, _ in held)
    return {
        "ece": sum(abs(right - total) for _, right, total in held) / samples,
        "mce": max(abs(right - total) / n for n, right, total in held),
        "overconfidence": sum(total - right for _, right, total in held) / samples,
    }


def line(bins: Bins) -> Points:
    """Mean probability and share that is right, of each bin that holds a prediction."""
    held = [(n, right, total) for n, right, total in zip(bins["samples"], bins["right"], bins["sums"], strict=True) if n]
    return [total / n for n, _, total in held], [right / n for n, right, _ in held]


class Calibration(Plugin):
    """Measure at each validation how far probabilities are from how often they are right, and draw it: a reliability diagram.

    ECE = Σ_b n_b/n · |acc(b) − conf(b)| over bins b of equal width of the probability of the predicted class, MCE = max_b |acc(b) − conf(b)|, and
    the overconfidence, mean probability − accuracy, which is best at 0. Of several labels a sample each label counts, with its probability; of class maps each
    place. What is drawn is the last validation of a run; the test has a diagram in each report.

    Raises:
        Refusal: no task with classes or labels; a loss whose outputs are no logits.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    stage = Stage.DIAGNOSTICS
    needs_logits = True
    on_named_inputs = True
    on_class_maps = True
    on_shards = True

    bins: int = declare.count("bins of the probability", default=15)

    def __post_init__(self) -> None:
        """Nothing has been counted."""
        self._counts: dict[str, Reliability] = {}
        self._last: dict[str, dict[str, Any]] = {}

    def check(self, selection: Selection) -> None:
        """Refuse a run without classes."""
        if all(task.kind == "regression" for task in selection.setting.tasks):
            raise Refusal(
                f"{self.state_key} compares probabilities with what is true, and a regression predicts none: leave it out"
            )

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Begin to count."""
        tasks = [task for task in self.setting.tasks if task.kind != "regression"]
        self._counts = {task.name: Reliability(pl_module.device, self.bins) for task in tasks}

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Count a batch of the validation split."""
        for task in self.setting.tasks if split == "val" else ():
            if task.name in self._counts:
                self._counts[task.name].add(*outcomes(task, outputs[task.name], batch.labels[task.name]))
        return {}

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """The errors of each task."""
        self._take()
        several = len(self.setting.tasks) > 1
        return {
            f"{self.option}/{task}/{name}" if several else f"{self.option}/{name}": value
            for task, bins in self._last.items()
            for name, value in errors(bins).items()
        }

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Keep what a validation behind the training has counted."""
        if trainer.state.fn != "fit":
            self._take()

    def _take(self) -> None:
        self._last = {task: counts.compute() for task, counts in self._counts.items()}

    def drawing(self) -> Sequence[Panel]:
        """The reliability diagram of the last validation."""
        points = {task or "predictions": line(bins) for task, bins in self._last.items()}
        return [Panel("reliability", points=points, axes=("probability", "share that is right"), diagonal=True)]

    def state_dict(self) -> dict[str, Any]:
        """The counts of the last validation."""
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._last = dict(state_dict["last"])
