"""Predictions for an image and its mirror image."""

from __future__ import annotations

from torch import Tensor

from plugins.base import Module, Plugin, Refusal, Selection, Stage


class Mirrored(Plugin):
    """Predict by the mean over the image and its mirror image.

    p(x) = ½ softmax(z(x)) + ½ softmax(z(mirrored x)); for a regression the mean of the values.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep CNNs", 2012 (test-time augmentation).
    """

    stage = Stage.INFERENCE

    def check(self, selection: Selection) -> None:
        """Refuse data that have no mirror image."""
        if not selection.setting.is_image:
            raise Refusal("inference/mirrored needs images (channels, height, width): leave it out with this data")

    def predict(self, module: Module, x: Tensor) -> dict[str, Tensor]:
        """Probabilities, or values, by task."""
        first, second = module.outputs(x), module.outputs(x.flip(-1))
        kinds = {task.name: task.kind for task in module.setting.tasks}
        return {
            task: (first[task].softmax(1) + second[task].softmax(1)) / 2
            if kinds[task] == "classification"
            else (first[task] + second[task]) / 2
            for task in first
        }
