"""Early stopping, then going on with all data (Goodfellow, Bengio & Courville, Algorithm 7.3)."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import lightning as L

from plugins.base import Module, Phase, Refusal, Selection, called, declare, implementers
from plugins.stopping._second_phase import SecondPhase

LOSS = "val/loss"


class EarlyContinue(SecondPhase):
    """Stop early, then go on from the best weights with all data, until the validation loss is what the training loss was.

    Algorithm 7.3: Algorithm 7.1 on the training samples, judged by the validation samples, returns `θ*`. With ε the loss of `θ*` on the
    training samples, while J(θ, validation samples) > ε, train on both for n steps. Both losses are means over all samples in evaluation
    mode, so ε costs one more pass over the training split. The loop need not end by itself: it does after `max_steps`. The optimizer, the
    schedule, which stretches over `max_steps`, and what techniques do in the course of a training begin anew. The model is that after the last step, and its val/… are of
    samples that were trained on.

    Raises:
        RecipeError: no validation data; no metric of that name, or none of a known direction; a module that no run trains.
        Refusal: a technique that asks for a phase too, finds something on the validation split, or predicts in a way of its own;
            averaging=swa.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 7.8, Algorithm 7.3; lecture A.
    """

    max_steps: int | None = declare.count(
        "optimizer steps of the second phase at most", default=None, null="as many as led to the best weights"
    )

    def __post_init__(self) -> None:
        """Nothing has been evaluated yet."""
        super().__post_init__()
        self.validation_loss = self.training_loss = math.nan  # of θ*

    def check(self, selection: Selection) -> None:
        """Refuse what predicts in another way: the two losses would not compare."""
        super().check(selection)
        predicting = implementers([*selection.plugins, *selection.others], "predict")
        if predicting and selection.setting.training_inputs is not None:  # not of a finished run
            raise Refusal(
                f"{self.state_key} compares the loss of validation samples with that of training samples, which "
                f"{called(predicting[0])} does not predict: train without it, then type it behind evaluate.py"
            )

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Keep the loss of θ* too, whatever the metric is."""
        found = super().after_validation(module, metrics)
        if self.search.waited == 0:
            self.validation_loss = metrics[LOSS]
        return found

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Put θ* into the model, and measure ε."""
        super().on_train_end(trainer, pl_module)
        if self.recovers:
            self.training_loss = pl_module.evaluate_training(sys.maxsize)["loss"]

    def second(self) -> Phase | None:
        """Go on, unless the validation loss is there already."""
        if self.validation_loss <= self.training_loss:
            return None
        steps = self.max_steps or self.best_step
        return Phase("continue", max_steps=steps, all_data=True, stop_below=(LOSS, self.training_loss))

    def state_dict(self) -> dict[str, Any]:
        """What early stopping keeps, and the validation loss of θ*."""
        return {**super().state_dict(), "validation_loss": self.validation_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self.validation_loss = float(state_dict["validation_loss"])
