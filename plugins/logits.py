"""The loss of one task, and whether probabilities can be made of what it has trained."""

from __future__ import annotations

from typing import Any

from plugins.data import Task


def of_task(loss: Any, task: Task) -> Any:
    """The loss of one task."""
    return loss.for_task(task) if hasattr(loss, "for_task") else loss


def trains_logits(loss: Any, task: Task) -> bool:
    """Whether the outputs that a loss trains for a task are logits, as it says by `takes_logits`; without its word they are."""
    return bool(getattr(of_task(loss, task), "takes_logits", True))
