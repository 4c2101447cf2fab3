"""Ensembles of trained runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from plugins.base import Batch, Module, RecipeError, Setting, Task
from plugins.inference._measured import NUMBERS, OfParts, sums_of
from plugins.inference._members import MEMBERS, OfMembers
from plugins.inference._probabilities import probabilities
from plugins.inputs import Inputs, each
from plugins.logits import of_task, trains_logits

if TYPE_CHECKING:
    from jaxtyping import Float


def mean_of(predictions: Sequence[Float[Tensor, " samples *outputs"]]) -> Float[Tensor, " samples *outputs"]:
    """1/M · Σ p_m over M predictions, in 32 bits at least."""
    kinds = [torch.promote_types(p.dtype, torch.float32) for p in predictions]
    total = predictions[0].to(kinds[0])
    for p, kind in zip(predictions[1:], kinds[1:], strict=True):
        total = total + p.to(kind)
    return total / len(predictions)


class Ensemble(OfMembers):
    """Predict by the mean of trained runs: this one and its members.

    p(y | x) = 1/M · Σₘ pₘ(y | x), of which the most probable class is taken; of several labels the mean of the probability of each, of a
    regression the mean of the predictions. A member predicts as it was trained to, with its own preprocessing and temperature. This run
    is one of them: where its own folder is among the members it counts once, and predicts as it was trained to, too. Of each
    member (`acc_member_0`, …, in the order of `members`; `acc_itself`), of their mean (`acc_members`) and of the ensemble (`acc_ensemble`)
    accuracy, −ln p of the truth (`nll_…`) and expected calibration error (`ece_…`) are measured, of regressions the mean squared error (`mse_…`).

    Raises:
        RecipeError: a member of other inputs, targets or splits, one that was trained with a loss that makes no probabilities, or has members.
        Refusal: no members.

    Source: lecture B (model ensembles); Lakshminarayanan, Pritzel & Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles", NeurIPS 2017.
    """

    members: str | list[str] | None = MEMBERS

    def __post_init__(self) -> None:
        """Nothing is loaded yet."""
        self._loaded: list[Any] = []  # plain attributes, so that members are no part of what is trained and saved
        self._itself = True  # whether this run predicts beside its members
        self._predicted: list[dict[str, Tensor]] = []  # what each has predicted for the batch at hand, the mean last
        self._sums: dict[str, Tensor] = {}

    def prepare(self, setting: Setting) -> None:
        """Load the members."""
        super().prepare(setting)
        own = setting.folder and Path(setting.folder).resolve()
        folders = []
        for folder, module in self.loaded(setting):
            for task in module.setting.tasks:
                if task.kind == "classification" and not trains_logits(module.loss, task):
                    raise RecipeError(
                        f"{self.state_key}: {folder} was trained with {type(of_task(module.loss, task)).__name__}, whose outputs are no probabilities to average: "
                        f"leave it out of inference.members"
                    )
            self._loaded.append(module)
            self._itself &= Path(folder).resolve() != own
            knows = setting.training_inputs is not None and module.setting.trained_on_validation
            folders.append(f"{folder}{', trained on the validation samples too' if knows else ''}")
        self.remarks = [f"member_{number} is {folder}" for number, folder in enumerate(folders)]

    def predict(self, module: Module, x: Inputs) -> dict[str, Tensor]:
        """The mean of what this run and its members predict."""
        found = [self._asked(member.to(module.device), module, x) for member in self._loaded]
        if self._itself:
            found.append(probabilities(module.outputs(x), module.setting))
        mean = {task.name: mean_of([each[task.name] for each in found]) for task in module.setting.tasks}
        self._predicted = [*found, mean]
        return mean

    @staticmethod
    def _asked(member: Any, module: Module, x: Inputs) -> dict[str, Tensor]:
        """What a member predicts, in numbers of its own kind."""
        kind = next((p.dtype for p in member.parameters() if p.is_floating_point()), torch.float32)
        member.positions = module.positions
        with torch.no_grad():
            found: dict[str, Tensor] = member.predicted(each(x, lambda x: x.to(kind) if x.is_floating_point() else x))
        return found

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Count how good each is."""
        self._sums = {
            task.name: torch.stack([sums_of(task, each[task.name], batch.labels[task.name]) for each in self._predicted])
            for task in module.setting.tasks
            if task.has_point
        }
        return {}

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """The numbers of each member, of their mean and of the ensemble; none of quantiles without the median."""
        if not task.has_point:
            return {}
        alone = len(self._loaded) + self._itself
        parts = {f"member_{number}": slice(number, number + 1) for number in range(len(self._loaded))}
        parts |= {"itself": slice(alone - 1, alone)} if self._itself else {}
        parts |= {"members": slice(0, alone), "ensemble": slice(alone, alone + 1)}
        return {
            f"{name}_{part}": OfParts(compute, partial(self._counted, task.name), alone + 1, rows)
            for name, compute in NUMBERS[task.kind].items()
            for part, rows in parts.items()
        }

    def _counted(self, task: str) -> Tensor:
        return self._sums[task]
