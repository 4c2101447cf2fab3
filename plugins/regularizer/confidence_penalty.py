"""The confidence penalty (Pereyra et al., 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from plugins.base import Batch, Module, Plugin, Selection, Stage, declare
from plugins.regularizer._predictions import expect_classes, log_probabilities, total_over_tasks

if TYPE_CHECKING:
    from jaxtyping import Float


def entropy(log_p: Float[Tensor, "samples outcomes *rest"]) -> Float[Tensor, " samples *rest"]:
    """H = −Σ p ln p over the outcomes, in nats."""
    return -(log_p.exp() * log_p).sum(1)


class ConfidencePenalty(Plugin):
    """Reward predictions that leave room for doubt.

    J(θ) − weight · H(p(y | x; θ)), the mean entropy of the predicted probabilities over the samples, for each classification; of several labels
    a sample the mean over the labels, of class maps over the places. What the loss ignores counts as 0.

    Raises:
        Refusal: no classification task; a loss whose outputs are no logits.

    Source: Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output Distributions", 2017.
    """

    stage = Stage.PENALTY
    needs_logits = True
    on_named_inputs = True
    on_class_maps = True
    on_shards = True  # it sees outputs alone

    weight: float = declare.number("factor β of the penalty −β · H", default=0.1, least=0, off=0.0)

    def check(self, selection: Selection) -> None:
        """Refuse data without classes."""
        expect_classes(self.state_key, selection)

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The penalty on the predictions of this pass; their entropy is logged."""
        found = total_over_tasks(
            module.setting.tasks, batch, lambda task: entropy(log_probabilities(outputs[task.name], task.kind))
        )
        self.record(module, "entropy", found)
        return -self.weight * found
