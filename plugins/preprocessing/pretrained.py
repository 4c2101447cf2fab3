"""Inputs as pretrained weights expect them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plugins.base import Plugin, RecipeError, Stage, declare, expect
from plugins.preprocessing._layer import Affine, inverse_std, moments, statistics_shape
from plugins.pretrained import pretrained_of

CONSTANT = 1e-8  # standard deviation up to which a channel counts as constant, as of preprocessing=standardize


def _one_or_list(above: float) -> Any:
    """Whether a value is a number larger than `above`, or a list of such."""

    def accepts(value: Any) -> bool:
        numbers = list(value) if isinstance(value, (list, tuple)) else [value]
        kinds = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)
        return bool(numbers) and kinds and all(math.isfinite(number) and number > above for number in numbers)

    return accepts


class PretrainedInputs(Plugin):
    """Put inputs on the scale with which the model's pretrained weights were trained.

    x ← (x − mean) / std, channel by channel, where mean and std are those that come with the weights, and of the training split
    where none do. A run whose `model.weights` are given takes this by itself, unless another preprocessing is typed.

    Raises:
        RecipeError: a mean without a std or the reverse, lists of another length than the channels.
    """

    stage = Stage.PREPROCESSING
    on_named_inputs = False

    mean: float | Sequence[float] | None = declare.value(
        "what is subtracted, a number or a list of one a channel",
        "a number or a list of one a channel",
        _one_or_list(-math.inf),
        default=None,
        null="that of the weights",
    )
    std: float | Sequence[float] | None = declare.value(
        "what is divided by, a number or a list of one a channel",
        "a number > 0 or a list of one a channel",
        _one_or_list(0.0),
        default=None,
        null="that of the weights",
    )

    def __post_init__(self) -> None:
        both = (self.mean is None) == (self.std is None)
        expect(both, "preprocessing.mean and preprocessing.std", "both given, or both null", (self.mean, self.std))

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front; its values come from the checkpoint where a finished run is loaded."""
        shape = statistics_shape(self.setting.shape, None)
        found = pretrained_of(model)
        if self.mean is not None and self.std is not None:
            return Affine(model, self._given("mean", self.mean, shape), 1 / self._given("std", self.std, shape))
        if found is not None and found.shift is not None and found.scale is not None:
            self.remarks = [f"inputs as the weights expect them: {told(found.shift, found.scale)}"]
            return Affine(model, found.shift.clone(), found.scale.clone())
        if found is not None:
            self.remarks = [
                "the weights do not tell which inputs they expect: mean and deviation of the training split are taken; type "
                "preprocessing.mean and preprocessing.std, with preprocessing=pretrained, where you know them"
            ]
        inputs = self.setting.training_inputs
        mean, variance = moments(inputs(), shape) if inputs else (torch.zeros(shape), torch.ones(shape))
        layer = Affine(model, mean, inverse_std(variance, CONSTANT))
        known = [statistics_shape(self.setting.shape, per) for per in ("channel", "feature")]
        layer.register_load_state_dict_pre_hook(partial(_take_on_shape, known=known))
        return layer

    def _given(self, name: str, value: float | Sequence[float], shape: Sequence[int]) -> Tensor:
        numbers = torch.tensor(value if isinstance(value, (list, tuple)) else [value], dtype=torch.get_default_dtype())
        if len(numbers) not in (1, shape[0]):
            raise RecipeError(
                f"preprocessing.{name} must be a number or a list of {shape[0]}, one a channel, got {len(numbers)} of them"
            )
        return numbers.reshape(-1, *(1 for _ in shape[1:])).expand(tuple(shape)).clone()


def _take_on_shape(
    layer: nn.Module, state: Mapping[str, Any], prefix: str, *further: Any, known: list[tuple[int, ...]]
) -> None:
    """Numbers one a channel or one a feature, whichever came with the weights that the run of a checkpoint began with."""
    for name in ("shift", "scale"):
        saved = state.get(f"{prefix}{name}")
        if saved is not None and tuple(saved.shape) in known:
            setattr(layer, name, layer.get_buffer(name).new_empty(saved.shape))


def told(shift: Tensor, scale: Tensor) -> str:
    """Mean and deviation in words."""
    if shift.numel() > 8:
        return f"{shift.numel():,} means and deviations"
    if not bool(shift.any()) and bool((scale == 1).all()):
        return "raw"
    mean, deviation = (", ".join(f"{number:.4g}" for number in part.flatten().tolist()) for part in (shift, 1 / scale))
    return f"less the mean [{mean}], by the deviation [{deviation}]"
