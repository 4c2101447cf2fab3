"""Inputs, one tensor or several by name, that are put on a scale by statistics of the training split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plugins.base import Plugin, Refusal, Selection, Stage, declare
from plugins.inputs import mask_of, quantities
from plugins.preprocessing._layer import Affine, InputLayer, statistics_shape


class AffineByName(InputLayer):
    """The same of several inputs by name: x ← (x − shift) · scale of each that has them, and 0 where its mask leaves out.

    Args:
        model: that takes them.
        factors: shift and scale by the name of an input.
        masks: the name of the mask of an input that has one.
    """

    def __init__(self, model: nn.Module, factors: Mapping[str, tuple[Tensor, Tensor]], masks: Mapping[str, str]) -> None:
        super().__init__(model)
        self.names, self.masks = list(factors), dict(masks)
        for number, pair in enumerate(factors.values()):  # not any name may be that of a buffer
            for kind, values in zip(("shift", "scale"), pair, strict=True):
                self.register_buffer(f"{kind}_{number}", values.to("cpu", torch.get_default_dtype()))

    def transform(self, x: Any) -> Any:
        """Shift and scale each."""
        found = dict(x)
        for number, name in enumerate(self.names):
            found[name] = (x[name] - getattr(self, f"shift_{number}")) * getattr(self, f"scale_{number}")
            if name in self.masks:
                left_out = ~(x[self.masks[name]] > 0)
                found[name] = found[name].masked_fill(left_out.reshape(*left_out.shape, *[1] * (x[name].ndim - 2)), 0)
        return found


class FittedInputs(Plugin):
    """Preparing inputs by statistics of the training split.

    Of several inputs by name those that are numbers are prepared, each by itself; where a mask has a number for each of its places, the
    places that are left out are in no statistic. Masks, whole numbers and truth values stay as they are.
    """

    stage = Stage.PREPROCESSING
    on_named_inputs = True

    if TYPE_CHECKING:
        per: str | None

    def check(self, selection: Selection) -> None:
        """Refuse inputs of which none is a quantity."""
        setting = selection.setting
        if setting.tokens:
            raise Refusal(
                f"{self.state_key} takes inputs that are quantities, and these are whole numbers that stand for something: type preprocessing=none"
            )
        if setting.is_named and not quantities(setting.shape):
            raise Refusal(
                f"{self.state_key} takes inputs that are numbers, and none of these is ({', '.join(setting.shape)}): type preprocessing=none"
            )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front, fitted; its values come from the checkpoint where a finished run is loaded."""
        setting = self.setting
        if not setting.is_named:
            shape = statistics_shape(setting.shape, self.per)
            return Affine(model, *self.factors(setting.training_inputs, shape))
        factors, masks = {}, {}
        for name in quantities(setting.shape, model):
            if (mask := mask_of(setting.shape, name, model)) is not None:
                masks[name] = mask
            kept = setting.shape[name].shape[1:] or (1,) if mask else setting.shape[name].shape or (1,)
            factors[name] = self.factors(only(setting.training_inputs, name, mask), statistics_shape(kept, self.per))
        return AffineByName(model, factors, masks)

    def factors(self, inputs: Callable[[], Iterator[Tensor]] | None, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Shift and scale, each of a shape; of no inputs any."""
        raise NotImplementedError


def per_parameter() -> Any:
    """Declare over what statistics are taken."""
    return declare.choice(
        "channel", "feature", default=None, help="channel | feature", null="channel for images, feature for other data"
    )


def only(inputs: Callable[[], Iterator[Any]] | None, name: str, mask: str | None) -> Callable[[], Iterator[Tensor]] | None:
    """One of several inputs, piece by piece; with a mask the places that it keeps, (places, *shape)."""

    def pieces(found: Callable[[], Iterator[Any]]) -> Iterator[Tensor]:
        for piece in found():
            values = piece[name] if mask is None else piece[name][piece[mask] > 0]
            if len(values):
                yield values.unsqueeze(1) if values.ndim == 1 else values

    return None if inputs is None else partial(pieces, inputs)
