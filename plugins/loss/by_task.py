"""The loss that fits the task: cross entropy for classes, binary for several labels, mean squared error for a regression."""

from __future__ import annotations

from torch import Tensor

from plugins.base import Task
from plugins.loss.bce import BinaryCrossEntropy
from plugins.loss.cross_entropy import CrossEntropy
from plugins.loss.mse import MSE


class LossByTask:
    """Cross entropy for labels and probabilities, of several labels a sample the binary one, mean squared error for numbers.

    The engine asks for the loss of each task. Called without a task, whole numbers are labels; other numbers are
    probabilities where there is one for each of two outputs or more, and values of a regression where there is one output.

    Shapes: output (samples, outputs); target (samples,), (samples, 1) or (samples, classes). A value for each sample (samples,), or
    with reduction "mean" their mean.

    Raises:
        RecipeError: shapes that fit neither.
    """

    def __init__(self) -> None:
        self.cross_entropy, self.mse = CrossEntropy(), MSE()

    def for_task(self, task: Task) -> CrossEntropy | MSE | BinaryCrossEntropy:
        """The loss of one task, whatever the shapes of its targets."""
        if task.kind == "multilabel":
            return BinaryCrossEntropy().for_task(task)
        return self.cross_entropy if task.kind == "classification" else self.mse

    def __call__(self, output: Tensor, target: Tensor, reduction: str = "none") -> Tensor:
        """One value a sample, (samples,); with reduction "mean" a scalar."""
        probabilities = target.ndim > 1 and target.shape[1] > 1
        loss = self.cross_entropy if probabilities or not target.is_floating_point() else self.mse
        return loss(output, target, reduction)
