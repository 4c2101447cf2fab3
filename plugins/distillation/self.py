"""Born-again networks (Furlanello et al., 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from plugins.base import Phase, RecipeError, Setting, declare
from plugins.distillation._teacher import TaughtByOutputs


class BornAgain(TaughtByOutputs):
    """Train the same recipe several times in one run, each generation taught by the one before.

    Generation 1 learns from the labels. Generation k + 1 starts from fresh weights, trains for as many steps, and minimizes
    J = (1 − α) · J_labels + α · T² · KL(softmax(z_k / T) ‖ softmax(z / T)), for each classification, with the outputs z_k of the best
    model of generation k, in evaluation mode, on the same batch after all augmentation: one more forward pass a step.
    The run's model is that of the last generation. All start from the same initial weights and see the samples in the same order, so that
    what differs is the teacher. A run that goes on has its teacher in its checkpoint, from which the steps go on.

    Raises:
        RecipeError: a module that no run trains, so that nobody begins the next generation.
        Refusal: no classification task; a loss whose outputs are no logits.

    Source: Furlanello, Lipton, Tschannen, Itti & Anandkumar, "Born-again neural networks", ICML 2018.
    """

    generations: int = declare.count(
        "generations that are taught, each by the one before, behind a first one that is not", default=1
    )
    temperature: float = declare.number("T, how far probabilities are levelled before they are compared", default=1.0, above=0)
    weight: float = declare.share("α, the share of the teacher in the loss", default=0.5, off=0.0)

    def prepare(self, setting: Setting) -> None:
        """Take the generation before as the teacher, where there is one."""
        super().prepare(setting)
        if setting.training_inputs is not None and setting.with_weights is None:
            raise RecipeError(
                f"{self.state_key} trains one generation after the other, as train.py does: from Python train the first by itself, and the "
                f"next with LogitDistillation(FOLDER)"
            )
        if setting.before is not None:
            self._learn_from(setting.before)

    def _learn_from(self, weights: Mapping[str, Tensor]) -> None:
        assert self.setting.with_weights is not None
        self._model = self.setting.with_weights(weights).requires_grad_(False)

    def next_phase(self, result: Mapping[str, Any]) -> Phase | None:
        """Ask for the next generation, of as many steps as the first one."""
        done, steps = int(result["phases"]), [*result["phase_begins"], result["steps"]][1]
        if done > self.generations or not steps:
            return None
        return Phase(f"generation {done + 1}", max_steps=int(steps), fresh=True)

    def state_dict(self) -> dict[str, Any]:
        """The weights of the teacher, where there is one."""
        return {} if self._model is None else {"teacher": dict(self._model.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        if "teacher" in state_dict:
            self._learn_from(state_dict["teacher"])
