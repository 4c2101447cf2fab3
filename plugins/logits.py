"""Whether probabilities can be made of what a loss has trained."""

from __future__ import annotations

from typing import Any

from plugins.data import Task


def trains_logits(loss: Any, task: Task) -> bool:
    """Whether the outputs that a loss trains for a task are logits, as it says by `takes_logits`; without its word they are."""
    of_task = loss.for_task(task) if hasattr(loss, "for_task") else loss
    return bool(getattr(of_task, "takes_logits", True))
