"""What metrics of a regression have in common."""

from __future__ import annotations

from collections.abc import Mapping

from torchmetrics import Metric

from plugins.base import Plugin, Refusal, Selection, Stage, Task, expect_point


class RegressionMetric(Plugin):
    """A metric of each task that is a regression, in the units of its targets; a subclass makes the torchmetrics object.

    Raises:
        Refusal: no task is a regression.
    """

    stage = Stage.DIAGNOSTICS

    def check(self, selection: Selection) -> None:
        """Refuse a run without numbers to predict."""
        if not any(task.kind == "regression" for task in selection.setting.tasks):
            raise Refusal(
                f"{self.state_key} measures how numbers are predicted, and the targets are classes: type +metric=f1, auroc or another "
                f"metric of classes"
            )
        expect_point(self.state_key, selection.setting.tasks)

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """One object for a regression."""
        return {self.option: self.make(task)} if task.kind == "regression" else {}

    def make(self, task: Task) -> Metric:
        """The torchmetrics object, which is given predictions and targets, both (samples, columns)."""
        raise NotImplementedError
