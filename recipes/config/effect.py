"""What of a config makes a difference to the training, and what does not. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

EXACT = 2**53  # up to here each whole number is a float of its own

# what makes no difference to the training: two runs that differ only here are the same run
WITHOUT_EFFECT: tuple[str, ...] = (
    "seed",
    "name",
    "tags",
    "notes",
    "resume",
    "overwrite",
    "sweep",
    "explain",
    "logger",
    "metric",
    "data.root",
    "data.download",
    "data.in_memory",
    "data.workers",
    "data.eval_batch_size",
    *(f"callback.{name}" for name in ("learning_rate_monitor", "device_stats_monitor", "rich_model_summary")),
)
WITHOUT_EFFECT += tuple(f"trainer.{name}" for name in ("progress", "num_threads", "log_every_n_steps", "save_every_n_steps"))


def has_effect(key: str) -> bool:
    """Whether a config key makes a difference to the training."""
    return not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)


def words_with_effect(command: Iterable[str]) -> list[str]:
    """A command without the words that make no difference to the training, such as the seed."""
    keys = ((word, word.lstrip("+~").partition("=")[0]) for word in command)
    return [word for word, key in keys if has_effect(key) and key.split("/")[0].split(".")[0] != "hydra"]


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; empty mappings are left out."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def in_one_way(value: Any) -> Any:
    """A value whose whole numbers are written in one way, 1 for 1.0 too, also inside of lists and mappings."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    if isinstance(value, Mapping):
        return {name: in_one_way(each) for name, each in value.items()}
    return [in_one_way(each) for each in value] if isinstance(value, (list, tuple)) else value
