"""What a model knows of the pretrained weights it starts from: what was taken, and which inputs they expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Pretrained:
    """The weights that a model was given; a model has it as its attribute `pretrained_weights`.

    Attributes:
        remarks: what was taken, what was not and why, a line each.
        shift: of the inputs that the weights expect, x ← (x − shift) · scale, to be broadcast over a sample; None: not known.
        scale: of the same; None: not known.
        size: height and width of the images they were trained on; None: not known.
        kept: what the run that has saved them tells of its data; empty where it is none of this project.
    """

    remarks: tuple[str, ...]
    shift: Tensor | None = None
    scale: Tensor | None = None
    size: tuple[int, int] | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)


class Weights(dict[str, Tensor]):
    """Tensors by name, with a `remark` about where they are from; empty where there is nothing to tell."""

    remark: str = ""


def pretrained_of(model: nn.Module) -> Pretrained | None:
    """What is known of the weights that a model, or a part of it, was given; None where it was given none."""
    for part in model.modules():
        if isinstance(found := getattr(part, "pretrained_weights", None), Pretrained):
            return found
    return None
