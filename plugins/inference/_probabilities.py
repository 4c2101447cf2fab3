"""What techniques that average predictions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Setting

if TYPE_CHECKING:
    from jaxtyping import Float


def probabilities(outputs: Mapping[str, Tensor], setting: Setting) -> dict[str, Tensor]:
    """Outputs (samples, classes) as class probabilities, of several labels as those of each; of a regression as they are. In 32 bits at least."""
    tasks = {task.name: task for task in setting.tasks}
    precise = {task: output.to(torch.promote_types(output.dtype, torch.float32)) for task, output in outputs.items()}
    return {task: tasks[task].probabilities(output) for task, output in precise.items()}


def entropy(p: Float[Tensor, "samples classes *places"]) -> Float[Tensor, " samples *places"]:
    """−Σ p ln p over the classes, in nats, of probabilities (samples, classes, *places); (samples, *places)."""
    return -(p * p.clamp_min(1e-38).log()).sum(1)
