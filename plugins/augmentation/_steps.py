"""What the augmentations of sequences share: where inputs have their steps, which of them there are, and what has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plugins.base import Plugin, Refusal, Selection
from plugins.inputs import Entry, described, mask_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

OF_POINTS = ("data/points", "model/pointnet", "model/dgcnn")


@dataclass(frozen=True)
class Layout:
    """Where inputs have steps.

    Args:
        dim: of steps, in a tensor of samples.
        names: of the inputs that have some; none where inputs are one tensor.
        mask: name of the input that is true, or above 0, at the steps that there are; None: all are.
    """

    dim: int
    names: tuple[str, ...] = ()
    mask: str | None = None

    def values(self, x: Any) -> list[Tensor]:
        """The inputs that have steps, (samples, steps, …)."""
        return [value.movedim(self.dim, 1) for value in ([x[name] for name in self.names] if self.names else [x])]

    def valid(self, x: Any) -> Bool[Tensor, "samples steps"]:
        """Which steps there are."""
        if self.mask is not None:
            return x[self.mask] > 0
        one = self.values(x)[0]
        return torch.ones(one.shape[:2], dtype=torch.bool, device=one.device)

    def put(self, x: Any, values: Sequence[Tensor], valid: Tensor | None = None) -> Any:
        """Inputs with others in place of those that have steps, and with another mask, where there is one."""
        values = [value.movedim(1, self.dim) for value in values]
        if not self.names:
            return values[0]
        masks = {} if valid is None or self.mask is None else {self.mask: valid.to(x[self.mask].dtype)}
        return {**x, **dict(zip(self.names, values, strict=True)), **masks}


class OfSteps(Plugin):
    """An augmentation along the steps of a sequence, or along the time of a spectrogram.

    Steps are those of floats (steps, …) by name, which a mask may leave out, of samples (steps, features), and the last dimension of
    (channels, frequency, time), as torchaudio has spectrograms. A subclass tells by `needs_bands` whether a sample must have several numbers
    at each step, and by `moves` whether steps get another place.
    """

    on_named_inputs = True
    needs_bands = False
    moves = True

    layout: Layout

    def check(self, selection: Selection) -> None:
        """Find the steps, and refuse inputs that have none."""
        super().check(selection)
        setting = selection.setting
        instead = f"choose a spectrogram or a series, or leave {self.option} out"
        if (setting.is_named and "points" in setting.shape) or any(map(selection.has, OF_POINTS)):
            raise Refusal(f"{self.state_key} needs steps in an order, and these are points without one: {instead}")
        if setting.tokens:
            raise Refusal(f"{self.state_key} needs numbers, and these inputs stand for something: {instead}")
        if setting.is_named:
            self.layout = self._by_name(setting.shape, instead)
        elif len(setting.shape) == 1:
            if self.needs_bands or selection.has("data/csv"):
                what = (
                    "the columns of a table"
                    if selection.has("data/csv")
                    else f"one number at each of {setting.shape[0]} places"
                )
                raise Refusal(f"{self.state_key} needs {self._asked}, and a sample is {what}: {instead}")
            self.layout = Layout(1)
        elif len(setting.shape) in (2, 3):
            self.layout = Layout(1 if len(setting.shape) == 2 else -1)
        else:
            raise Refusal(f"{self.state_key} needs {self._asked}, and a sample has the shape {tuple(setting.shape)}: {instead}")

    @property
    def _asked(self) -> str:
        return "spectrograms (steps, bands)" if self.needs_bands else "steps (steps, features)"

    def _by_name(self, shape: Mapping[str, Entry], instead: str) -> Layout:
        floats = [name for name, entry in shape.items() if entry.kind.startswith("float")]
        least = 2 if self.needs_bands else 1
        masks = {name: mask_of(shape, name) for name in floats}
        if any(masks.values()):
            floats = [name for name in floats if masks[name] and len(shape[name].shape) >= least]
        else:
            floats = [name for name in floats if len(shape[name].shape) >= 2]
        lengths, used = {shape[name].shape[0] for name in floats}, {masks[name] for name in floats}
        if len(lengths) != 1 or len(used) != 1:
            raise Refusal(f"{self.state_key} needs {self._asked} of one length, and there is {described({**shape})}: {instead}")
        (mask,) = used
        for name, entry in shape.items():
            if self.moves and name not in floats and name != mask and entry.shape[:1] == (*lengths,):
                raise Refusal(
                    f"{self.state_key} moves steps, and {name} has a place for each of them and is no number to move: leave it out of "
                    f"data.input, or leave {self.option} out"
                )
        return Layout(1, tuple(floats), mask)


def ranks(
    valid: Bool[Tensor, "samples steps"],
) -> tuple[Int[Tensor, "samples steps"], Int[Tensor, "samples steps"], Int[Tensor, " samples"]]:
    """The number of each step among those that there are, the places of these, first those that there are, and how many there are."""
    return valid.cumsum(1) - 1, (~valid).long().argsort(dim=1, stable=True), valid.sum(1)


def taken(x: Tensor, places: Int[Tensor, "samples steps"]) -> Tensor:
    """Samples (samples, steps, …) with the steps that stand at some places."""
    return x.gather(1, places.view(*places.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))
