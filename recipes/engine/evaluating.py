"""What Lightning calls when a module is validated, tested and asked for predictions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from plugins.inputs import Inputs
from recipes.engine.parts import Whole


class Evaluating(Whole):
    """The evaluations of a module as Lightning's loops call them; the numbers come from `recipes/engine/evaluation.py`."""

    def on_validation_model_eval(self) -> None:
        """Put the weights in place that are evaluated and saved."""
        self.evaluation.put_weights()

    def on_validation_model_train(self) -> None:
        """Put the training weights and modes back."""
        self.evaluation.put_back()

    on_test_model_eval = on_predict_model_eval = on_validation_model_eval
    on_test_model_train = on_predict_model_train = on_validation_model_train

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self.evaluation.begin("val")

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self.evaluation.begin("test")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Metrics of a validation batch."""
        self.evaluation.add(batch, batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Metrics of a test batch."""
        self.evaluation.add(batch, batch_idx, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """What is predicted for the inputs of a batch, as a test of them would count it."""
        return self.evaluation.predict(batch, batch_idx)

    def predicted(self, x: Inputs) -> dict[str, Tensor]:
        """Probabilities, or numbers, for inputs as the model takes them, by the way of inference that it was built with."""
        return self.evaluation.predicted(x)

    def on_validation_epoch_end(self) -> None:
        """Publish validation metrics, and the training metrics since the last validation beside them."""
        self.evaluation.publish()

    def on_test_epoch_end(self) -> None:
        """Publish test metrics."""
        self.draws.seed_between(self.steps_done, self.device)
        self.confusion, self.tallied = self.evaluation.confusion(), self.evaluation.tallied()
        self.recorder.publish(self.evaluation.metrics("test"))
