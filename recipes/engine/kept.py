"""What a checkpoint may hold, and what it must: looked at as a whole before anything of it is used."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plugins.base import RecipeError
from plugins.sites import is_expanded
from recipes.config.errors import one_line
from recipes.config.kinds import is_count, is_counts, is_mapping, is_number, is_text, is_texts
from recipes.config.places import open_file
from recipes.store.phase_results import is_phase

DEEPEST, MOST = 40, 10_000_000  # mappings and lists inside of each other, and values altogether
NUMBERS = ("float16", "bfloat16", "float32", "float64", "int64", "bool")
KINDS = ("classification", "multilabel", "regression")
LARGEST_SAMPLE = 2**26  # numbers


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's tensors and plain values; one that would execute something, or is none of ours, is refused.

    Raises:
        RecipeError: it is not there, cannot be loaded, or holds something else; or no file lies there.
    """
    state = read(path, map_location)
    try:
        check(state)
    except ValueError as error:
        raise RecipeError(f"{path} is no checkpoint of this project: {one_line(error)}") from None
    return state


def read(path: Path, map_location: Any = "cpu") -> Any:
    """What a file of torch's holds, without anything being executed; not looked at yet.

    Raises:
        RecipeError: it is not there, or cannot be loaded so; or no file lies there.
    """
    try:
        with open(open_file(path), "rb") as file:
            _check_archive(file)
            return torch.load(file, map_location=map_location or "cpu", weights_only=True)
    except FileNotFoundError:
        raise RecipeError(f"no checkpoint {path}") from None
    except RecipeError:
        raise
    except (Exception, RecursionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RecipeError(f"the checkpoint {path} cannot be loaded: {one_line(ValueError(first))}") from None


def check_tensors(weights: Any) -> None:
    """Raise ValueError unless `weights` are tensors by name, of the kinds that runs save."""
    if not isinstance(weights, Mapping) or not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError("it holds no tensors by name")
    _check_plain(dict(weights), 0, [MOST])


def _check_archive(file: Any) -> None:
    """Refuse a file that unpacks to more than it holds."""
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its parts are compressed, torch's never are")
    file.seek(0)


def check(state: Any) -> None:
    """Raise ValueError unless `state` is what a run saves: plain values and tensors, and what this project reads of them."""
    if not isinstance(state, dict):
        raise ValueError(f"it holds {type(state).__name__}, not a mapping")
    _check_plain(state, 0, [MOST])
    weights: Any = state.get("state_dict")
    kept: Any = state.get("recipe")
    _expect(is_mapping(weights) and all(isinstance(weight, Tensor) for weight in weights.values()), "state_dict", "tensors")
    for name in ("global_step", "epoch"):
        _expect(is_count(state.get(name)) and 0 <= state[name] < 2**62, name, "a whole number ≥ 0")
    _expect(isinstance(kept, dict), "recipe", "a mapping")
    _check_kept(kept)
    widest = max((size for weight in weights.values() for size in weight.shape), default=0)
    _expect(all(task["outputs"] <= widest for task in kept["tasks"]), "recipe.tasks", "of as many outputs as there are weights")


def _check_kept(kept: Mapping[str, Any]) -> None:
    phase, shape, tasks = (kept.get(name) for name in ("phase", "shape", "tasks"))  # type: Any, Any, Any
    _expect(isinstance(phase, dict), "recipe.phase", "a mapping")
    for name in ("index", "steps"):
        _expect(is_count(phase.get(name)) and 0 <= phase[name] < 2**62, f"recipe.phase.{name}", "a whole number ≥ 0")
    _expect(is_number(phase.get("seconds")), "recipe.phase.seconds", "a number")
    _expect(is_count(phase.get("max_steps", 0)), "recipe.phase.max_steps", "a whole number")
    _expect(is_counts(phase.get("begun", [])), "recipe.phase.begun", "a list of whole numbers")
    ended = phase.get("ended", [])
    _expect(isinstance(ended, list) and all(map(_is_ended, ended)), "recipe.phase.ended", "what each phase has done")
    below = phase.get("stop_below")
    _expect(below is None or _is_pair(below), "recipe.phase.stop_below", "a metric and a number")
    one = _are_sizes(shape) and shape != []
    several = isinstance(shape, dict) and shape != {} and is_texts([*shape]) and all(map(_is_entry, shape.values()))
    fits = one or several
    _expect(fits, "recipe.shape", "the sizes of a sample")
    _expect(isinstance(tasks, list) and tasks != [] and all(map(_is_task, tasks)), "recipe.tasks", "the targets of a run")
    for name in ("metrics", "records"):
        values = kept.get(name)
        _expect(isinstance(values, dict) and all(map(_is_number, values.values())), f"recipe.{name}", "numbers")
    for name in ("train", "window"):
        sums = kept.get(name)
        _expect(isinstance(sums, dict) and all(map(_is_sums, sums.values())), f"recipe.{name}", "sums with their counts")
    logged = kept.get("logged")
    fits = isinstance(logged, list | tuple) and len(logged) == 2 and is_count(logged[0]) and is_texts(logged[1])
    _expect(logged is None or fits, "recipe.logged", "a step and names")
    histograms = kept.get("histograms", {})
    _expect(isinstance(histograms, dict) and all(map(_is_histogram, histograms.values())), "recipe.histograms", "histograms")


def _expect(holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}")


def _is_number(value: object) -> bool:
    """A number, also none that is finite: that of a run which has diverged."""
    return isinstance(value, float) or (is_count(value) and abs(value) < 2**62)  # type: ignore[arg-type]


def _is_ended(value: Any) -> bool:
    """What a phase has done; its metrics may be no finite numbers."""
    metrics = value.get("metrics") if isinstance(value, dict) else None
    numbers = isinstance(metrics, dict) and all(map(_is_number, metrics.values()))
    return numbers and is_phase({**value, "metrics": {}})


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and is_text(value[0]) and _is_number(value[1])


def _is_task(task: object) -> bool:
    if not isinstance(task, dict) or set(task) - {"shape", "threshold", "quantiles"} != {"name", "kind", "outputs", "names"}:
        return False
    places = task.get("shape", ())  # older checkpoints have none
    if not isinstance(places, list | tuple) or not _are_sizes([*places]):
        return False
    threshold = task.get("threshold", 0.5)  # older checkpoints have none
    if not is_number(threshold) or not 0 < threshold < 1:
        return False
    levels = task.get("quantiles", ())
    if not isinstance(levels, list | tuple) or not all(is_number(level) and 0 < level < 1 for level in levels):
        return False
    names, outputs = task["names"], task["outputs"]
    fits = is_count(outputs) and 0 < outputs < 2**24 and isinstance(names, list | tuple) and is_texts(list(names))
    return fits and is_text(task["name"]) and task["kind"] in KINDS


def _are_sizes(shape: Any) -> bool:
    """The sizes of a sample, or of its places."""
    fits = isinstance(shape, list) and len(shape) <= 8 and all(is_count(size) and size > 0 for size in shape)
    return fits and math.prod(shape) < LARGEST_SAMPLE


def _is_entry(entry: object) -> bool:
    """Of one of several inputs the sizes of a sample, the type of its numbers and their ends."""
    if not isinstance(entry, list) or len(entry) != 4 or not _are_sizes(entry[0]):
        return False
    return entry[1] in NUMBERS and all(end is None or (is_count(end) and abs(end) < 2**63) for end in entry[2:])


def _is_sums(pair: object) -> bool:
    """Sums of each rank and their counts; of older checkpoints one each."""
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    sums, counts = (value if isinstance(value, list) else [value] for value in pair)
    return len(sums) == len(counts) and all(map(_is_number, sums)) and all(map(is_number, counts))


def _is_histogram(state: object) -> bool:
    if not isinstance(state, list | tuple) or len(state) != 3 or not isinstance(state[2], list):
        return False
    return all(map(is_number, state[:2])) and all(is_count(count) and 0 <= count < 2**62 for count in state[2])


def _check_plain(value: Any, depth: int, left: list[int]) -> None:
    """Raise unless all is plain: no other types, no endless nesting, no tensor that is larger than what the file holds of it."""
    left[0] -= 1
    if depth > DEEPEST or left[0] < 0:
        raise ValueError("it is nested too deep, or holds too many values")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str | int):
                raise ValueError(f"a key in it is {type(name).__name__}")
            _check_plain(inner, depth + 1, left)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(inner, depth + 1, left)
    elif isinstance(value, Tensor):
        if (
            value.layout != torch.strided
            or value.is_quantized
            or value.is_meta
            or type(value) not in (Tensor, torch.nn.Parameter)
        ):
            raise ValueError("it holds a tensor of another kind than runs save")
        if is_expanded(value):
            raise ValueError("it holds a tensor that is larger than its numbers")
    elif value is not None and not isinstance(value, str | int | float | bool | torch.dtype | torch.device):
        raise ValueError(f"it holds {type(value).__name__}")
