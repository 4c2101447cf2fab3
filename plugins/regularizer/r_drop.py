"""R-Drop (Liang et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from plugins.activations import passage
from plugins.base import Batch, Module, Plugin, Refusal, Selection, Stage, Task, declare
from plugins.passes import further_pass
from plugins.regularizer._predictions import expect_classes, log_probabilities, total_over_tasks

if TYPE_CHECKING:
    from jaxtyping import Float

RATES = ("p", "prob", "drop_prob", "dropout")  # what layers that drop at random call the probability


def symmetric_divergence(
    log_p: Float[Tensor, "samples outcomes *rest"], log_q: Float[Tensor, "samples outcomes *rest"]
) -> Float[Tensor, " samples *rest"]:
    """½ KL(p ‖ q) + ½ KL(q ‖ p) = ½ Σ (p − q)(ln p − ln q) over the outcomes."""
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)


class RDrop(Plugin):
    """Have two passes that drop other units predict the same.

    J(θ) + weight · ½ (KL(p ‖ q) + KL(q ‖ p)), the mean over samples, for each classification: p is what the pass predicts that is trained on, q
    what another one does on the same batch, with masks of its own. The gradient leads through both; the loss is that of the first. The paper
    adds the losses of both, so that its α is twice this weight. Costs a second forward pass and its backward pass. Of several labels a
    sample it is the mean over the labels, of class maps over the places; what the loss ignores counts as 0.

    Raises:
        Refusal: no classification task; a loss whose outputs are no logits; a model in which nothing is dropped.

    Source: Liang et al., "R-Drop: Regularized Dropout for Neural Networks", NeurIPS 2021.
    """

    stage = Stage.PENALTY
    needs_logits = True
    on_named_inputs = True
    on_class_maps = True

    weight: float = declare.number("factor of the divergence", default=1.0, least=0, off=0.0)

    def check(self, selection: Selection) -> None:
        """Refuse data without classes."""
        expect_classes(self.state_key, selection)

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, but refuse one whose passes are all equal."""
        if not any(map(drops, model.modules())) and not passage(model, self.setting.shape).dropping:
            raise Refusal(
                f"{self.state_key} compares two passes that drop other units, and {type(model).__name__} drops none: type "
                f"+regularizer=dropout beside it"
            )
        return model

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """The divergence between this pass and another one."""
        with further_pass(module.model, module.generator(self.option)):
            others = module.outputs(batch.x)

        def apart(task: Task) -> Tensor:
            return symmetric_divergence(*(log_probabilities(each[task.name], task.kind) for each in (outputs, others)))

        found = total_over_tasks(module.setting.tasks, batch, apart)
        self.record(module, "divergence", found)
        return self.weight * found


def drops(module: nn.Module) -> bool:
    """Whether a layer drops at random in training: it has a probability that is not 0, or a tensor that may change."""
    rates = [getattr(module, name, None) for name in RATES]
    return any(isinstance(rate, Tensor) or (isinstance(rate, (int, float)) and rate > 0) for rate in rates)
