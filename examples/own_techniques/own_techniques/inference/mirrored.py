"""Predictions for an image and its mirror image."""

from __future__ import annotations

from torch import Tensor

from plugins.base import Module, Plugin, Refusal, Selection, Stage
from plugins.inference._probabilities import probabilities


class Mirrored(Plugin):
    """Predict by the mean over the image and its mirror image.

    p(x) = ½ p(y | x) + ½ p(y | mirrored x), of several labels that of each; for a regression the mean of the values.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep CNNs", 2012 (test-time augmentation).
    """

    stage = Stage.INFERENCE

    def check(self, selection: Selection) -> None:
        """Refuse data that have no mirror image."""
        if not selection.setting.is_image:
            raise Refusal("inference/mirrored needs images (channels, height, width): leave it out with this data")

    def predict(self, module: Module, x: Tensor) -> dict[str, Tensor]:
        """Probabilities, or values, by task."""
        first, second = (probabilities(module.outputs(view), module.setting) for view in (x, x.flip(-1)))
        return {task: (first[task] + second[task]) / 2 for task in first}
