"""What a search has found, told at its end. Nothing here imports torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from plugins.errors import RecipeError
from recipes.config.kinds import is_count, is_number, is_texts
from recipes.config.settings import SEARCH_RESULTS, expect_below
from recipes.config.untrusted import read_yaml


def best_of_search(folder: Path) -> str:
    """The best trial as words for the command line, and how good it is; empty for other sweeps."""
    try:
        found = read_yaml(folder / SEARCH_RESULTS)
    except FileNotFoundError:
        return ""
    words, value = found.get("best_words"), found.get("best_value")
    if not words or not is_texts(words) or not is_number(value):
        return ""
    line = f"{' '.join(words)}  ({found.get('metric')} {value:.4f} in the search"
    begun, ended = found.get("repeats"), found.get("repeated")
    if is_number(mean := found.get("repeated_mean")):
        deviation = found.get("repeated_deviation")
        spread = f" ± {deviation:.4f}" if is_number(deviation) else ""
        line += (
            f", {mean:.4f}{spread} with {f'{ended} of {begun}' if is_count(begun) and begun != ended else ended} fresh seeds"
        )
    elif is_count(begun):
        line += f", none of {begun} fresh seeds has a number"
    return line + ")"


def repeated_jobs(folder: Path) -> set[Path]:
    """The folders of the jobs that have trained the best trial of a search again, with seeds that nothing was chosen by."""
    try:
        found = read_yaml(folder / SEARCH_RESULTS).get("repeated_jobs")
    except FileNotFoundError:
        return set()
    return {folder / name for name in found} if is_texts(found) else set()  # type: ignore[union-attr]


def chosen_job(folder: Path) -> tuple[Path, str] | None:
    """The folder of a job of the trial that a search has chosen, and by what, in words; None where it tells of none."""
    try:
        found = read_yaml(folder / SEARCH_RESULTS)
    except FileNotFoundError:
        return None
    name, metric, objectives = found.get("best_job"), found.get("metric"), found.get("objectives")
    if not isinstance(name, str) or not isinstance(metric, str):
        return None
    with suppress(RecipeError):
        expect_below(folder, name)
        return folder / name, " and ".join(objectives) if is_texts(objectives) else metric  # type: ignore[arg-type]
    return None
