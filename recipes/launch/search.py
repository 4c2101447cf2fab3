"""What a search has found, told at its end. Nothing here imports torch or Optuna."""

from __future__ import annotations

from pathlib import Path

from recipes.config.kinds import is_number
from recipes.config.settings import SEARCH_RESULTS
from recipes.config.untrusted import read_yaml


def best_of_search(folder: Path) -> str:
    """The best trial as words for the command line, and how good it is; empty for other sweeps."""
    try:
        found = read_yaml(folder / SEARCH_RESULTS)
    except FileNotFoundError:
        return ""
    words, value = found.get("best_words"), found.get("best_value")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words) or not is_number(value):
        return ""
    line = f"{' '.join(words)}  ({found.get('metric')} {value:.4f} in the search"
    if is_number(mean := found.get("repeated_mean")):
        deviation = found.get("repeated_deviation")
        spread = f" ± {deviation:.4f}" if is_number(deviation) else ""
        line += f", {mean:.4f}{spread} with {found.get('repeated')} fresh seeds"
    return line + ")"
