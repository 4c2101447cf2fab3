"""What the name of a metric tells. Nothing here imports torch."""

from __future__ import annotations


def larger_is_better(metric: str) -> bool:
    """Whether a metric is an accuracy (`val/acc`, `val/acc_pgd`, `val/digit/acc`): then larger is better, else smaller."""
    name = metric.rpartition("/")[2]
    return name == "acc" or name.startswith("acc_")
