"""What norm layers share, by what their means are taken over: the samples of a batch, or each sample by itself."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import nn

from plugins.base import Plugin, RecipeError, Refusal, Selection, Stage
from plugins.inputs import masks_in
from plugins.normalization._place import FeaturesLast, place_norms


class BatchStatistics(Plugin):
    """Norm layers with statistics over the samples of a batch.

    Raises:
        RecipeError: no place for a norm layer in the model.
        Refusal: batches of one sample, which is its own mean where a layer has no further places; inputs by name, such as tokens with a
            mask.
    """

    stage = Stage.NORMALIZATION

    def __post_init__(self) -> None:
        """Nothing is known of the batches yet."""
        self._least = 0  # samples a batch must have for two in each pass, where it has fewer

    def check(self, selection: Selection) -> None:
        """Refuse inputs with a mask: statistics would count what it leaves out."""
        if selection.setting.is_named:
            raise Refusal(
                f"{self.state_key} would take statistics over all places, also those that a mask leaves out, and the inputs are "
                f"{', '.join(selection.setting.shape)}: type normalization=model"
            )
        least = 2 * selection.devices
        self._least = least if selection.batch_size is not None and selection.batch_size < least else 0

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layers in; refuse those that have a single number for each mean."""
        place_norms(model, self.setting.shape, self._with_variance)
        return model

    def _with_variance(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        if self._least and math.prod(places) == 1:
            raise Refusal(
                f"{self.state_key} cannot be combined with one sample a forward pass, whose variance is 0 in a layer without further places: "
                f"use data.batch_size={self._least} or more, or normalization=model"
            )
        return self.make(features, places)

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, features, *places)."""
        raise NotImplementedError


class SampleStatistics(Plugin):
    """Norm layers with statistics of each sample by itself: the same in training and at test, whatever the batch.

    Raises:
        RecipeError: no place for a norm layer in the model; a mask, where statistics would count places that it leaves out.
    """

    stage = Stage.NORMALIZATION
    kept: ClassVar[tuple[type[nn.Module], ...]] = ()  # norm layers that are the same, and stay

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layers in."""
        self.place(model)
        return model

    def place(self, model: nn.Module) -> list[str]:
        """Put norm layers in; the names of the layers that one follows."""
        self._masks = masks_in(self.setting.shape, model)
        return place_norms(model, self.setting.shape, self._without_mask, self.make_last, kept=self.kept)

    def make(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, features, *places); None where a mean would be of one number."""
        raise NotImplementedError

    def make_last(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        """A norm for (samples, *places, features)."""
        made = self._without_mask(features, places)
        return None if made is None else FeaturesLast(made)

    def _without_mask(self, features: int, places: tuple[int, ...]) -> nn.Module | None:
        if places and self._masks:
            raise RecipeError(
                f"{self.state_key} would take statistics over all places, also those that the input {self._masks[0]} leaves out: type "
                f"normalization=model"
            )
        return self.make(features, places)
