"""What techniques share that say how often samples are drawn: a draw with given expectations, and the target whose classes count."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from plugins.base import Plugin, Refusal, Selection, Setting, Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def systematic(expected: Float[Tensor, " samples"], generator: torch.Generator) -> Int[Tensor, " samples"]:
    """As many indices as samples, in a random order: sample i stands there e_i times on average, and ⌊e_i⌋ or ⌈e_i⌉ times in each draw.

    One uniform number places equidistant points on the samples, laid one behind the other in a random order (systematic sampling).

    Args:
        expected: e_i ≥ 0 up to a common factor: they are scaled so that their sum is the number of samples.
        generator: draws.
    """
    n = len(expected)
    places = torch.randperm(n, generator=generator)
    ends = expected.double()[places].cumsum(0)
    ends = ends * (n / ends[-1])
    points = torch.rand((), generator=generator, dtype=torch.float64) + torch.arange(n)
    last = torch.searchsorted(ends, ends[-1])  # behind it nothing is drawn, whatever was rounded
    chosen = torch.searchsorted(ends, points, right=True).minimum(last)
    return places[chosen][torch.randperm(n, generator=generator)]


class ByClass(Plugin):
    """Draws samples by their class."""

    stage = Stage.SAMPLING
    draws: ClassVar[str]  # what it does, for the messages

    target: str | None = declare.value(
        "target whose classes count",
        "the name of a target with classes",
        lambda value: isinstance(value, str),
        default=None,
        null="the only one that has some",
    )

    def check(self, selection: Selection) -> None:
        """Refuse data whose classes are none, or are not known."""
        self.classes(selection.setting)

    def known(self, labels: Int[Tensor, " samples"], setting: Setting) -> Bool[Tensor, " samples"]:
        """Which labels name a class: those that the loss ignores, as -100 or 255, are none."""
        name = self.classes(setting)
        (task,) = [task for task in setting.tasks if task.name == name]
        return task.known(labels)

    def classes(self, setting: Setting) -> str:
        """The name of the target whose classes count."""
        there = [task.name for task in setting.tasks if task.kind == "classification"]
        if not there:
            raise Refusal(f"{self.state_key} draws {self.draws}, and the data has no classes: leave it out")
        if self.target is None and len(there) > 1:
            raise Refusal(
                f"{self.state_key} needs one target whose classes count, the data has {', '.join(there)}: type sampling.target={there[0]}"
            )
        if self.target is not None and self.target not in there:
            raise Refusal(
                f"sampling.target must be one of the targets with classes, {', '.join(map(repr, there))}, got {self.target!r}: name one, or null"
            )
        return there[0] if self.target is None else self.target
