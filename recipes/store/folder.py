"""What a run leaves in its folder: config.yaml, result.json, confusion.json. Nothing here imports torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from plugins.errors import RecipeError
from recipes.config.quoting import quote, show, typed
from recipes.config.run_files import BEST, CHECKPOINTS, CONFIG, CONFUSION, RESULT
from recipes.store import shapes
from recipes.store.files import write_text

if TYPE_CHECKING:
    from plugins.base import Task


def write_config(folder: Path, config: Mapping[str, Any], command: Sequence[str], changed: Sequence[str] = ()) -> None:
    """The resolved config, under the command that repeats the run; under those it went through where it was `changed` on the way."""
    head = f"# The resolved config of this run. To repeat it:\n#   {command_line(command)}\n"
    if changed:
        lines = "".join(f"#   {line}\n" for line in changed)
        head = f"# The resolved config of this run. It was changed on the way, so no single command repeats it:\n{lines}"
    write_text(folder / CONFIG, head + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run's best weights.

    Raises:
        RecipeError: the run has not validated yet.
    """
    checkpoint = folder / CHECKPOINTS / BEST
    if not checkpoint.exists():
        raise RecipeError(
            f"{folder} has no checkpoints/best.ckpt: the run has not validated yet; type python train.py {typed('resume', folder)}"
        )
    return checkpoint


def command_line(command: Sequence[str]) -> str:
    """The command with these words, as it is typed."""
    return f"python train.py {' '.join(map(quote, command))}".rstrip()


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """`result.json`, whole or not at all; JSON has no infinity: null stands for it, in the config `.inf` as it is typed."""
    typed = {"config": _finite(result["config"], in_words=True)} if "config" in result else {}
    write_text(
        folder / RESULT, json.dumps(_finite({"format": shapes.FORMAT, **result, **typed}), indent=2, allow_nan=False) + "\n"
    )


def _finite(value: Any, in_words: bool = False) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner, in_words) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner, in_words) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return show(value) if in_words else None
    return value


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json` of a run folder, not a number for a metric that is null; empty if there is none."""
    try:
        result = shapes.read_result(folder)
    except FileNotFoundError:
        return {}
    if "metrics" in result:
        result["metrics"] = {name: math.nan if value is None else value for name, value in result["metrics"].items()}
    return result


def write_confusion(folder: Path, tasks: Iterable[Task], matrices: Mapping[str, list[list[int]]]) -> dict[str, dict[str, Any]]:
    """`confusion.json`, and what it holds: the matrix of each classification on the test split; rows are true classes, columns predicted."""
    found: dict[str, dict[str, Any]] = {
        task.name: {
            "classes": list(task.names) or [str(number) for number in range(task.outputs)],
            "matrix": matrices[task.name],
        }
        for task in tasks
        if task.name in matrices
    }
    if found:
        write_text(folder / CONFUSION, json.dumps({"test": found}) + "\n")
    return found


def result_or_empty(folder: Path) -> dict[str, Any]:
    """What stands in `result.json`; empty where there is none that can be read."""
    try:
        return shapes.read_result(folder)
    except (OSError, RecipeError):
        return {}
