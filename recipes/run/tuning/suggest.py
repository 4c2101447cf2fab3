"""`tune=lr` and `tune=batch_size`: what is found, as a picture and as words to type; before a job of a sweep, as its setting."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from plugins.errors import RecipeError
from recipes.data.base import Data
from recipes.run.terminal import print_lines
from recipes.run.tuning.batch import Measured, find_batch_size
from recipes.run.tuning.rate import find_rate, nearest
from recipes.store.folder import command_line

ROWS, WIDTH = 18, 40  # of the picture
OWN = ("tune", "hydra", "sweep", "resume", "overwrite", "explain")  # keys of the command that are not typed again


def suggest(console: Console, config: Mapping[str, Any], folder: Path, data: Data, world: int, words: Sequence[str]) -> None:
    """Print what is found, and the command that trains with it.

    Args:
        console: quiet but on the first rank.
        config: of the run that would be trained.
        folder: that it would have.
        data: set up.
        world: processes that train together.
        words: of the command.
    """
    if config["tune"] == "lr":
        rate, curve = find_rate(config, folder, data, world)
        console.print(_falling(curve, rate))
        key, found = "optimizer.lr", f"{rate:g}"
    else:
        size, sizes = find_batch_size(config, folder, data, world)
        console.print(_speeds(sizes, size))
        key, found = "data.batch_size", str(size)
    kept = [word for word in words if word.lstrip("+~").partition("=")[0] not in (key, *OWN) and "hydra." not in word]
    print_lines(console, f"found    {key}={found}", f"next     {command_line([*kept, f'{key}={found}'])}")


def tuned(config: Mapping[str, Any], folder: Path, data: Data, world: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config with the rate that was found for it, and what that took, for its result.

    Raises:
        RecipeError: it is not the rate that is to be found; a size that is found by a clock would make no run that can be repeated.
    """
    if config["tune"] != "lr":
        raise RecipeError(
            f"tune={config['tune']} goes by the clock, so that no job of a sweep could be run again: leave it out"
        )
    began = time.perf_counter()
    rate, curve = find_rate(config, folder, data, world)
    told = {"key": "optimizer.lr", "value": rate, "steps": len(curve), "seconds": round(time.perf_counter() - began, 3)}
    return {**config, "optimizer": {**config["optimizer"], "lr": rate}}, told


def _falling(curve: Sequence[tuple[float, float]], rate: float) -> Table:
    shown = Table(header_style="bold", title=None)
    shown.add_column("lr", justify="right")
    shown.add_column("loss", justify="right")
    shown.add_column("")
    first, chosen = curve[0][1], nearest([each for each, _ in curve], rate)
    every = max(1, len(curve) // ROWS)
    for place, (each, loss) in enumerate(curve):
        if place == chosen or (place % every == 0 and abs(place - chosen) >= every):
            mark = "←" if place == chosen else ""
            shown.add_row(f"{each:.1e}", f"{loss:.4f} {mark:1}", Bar(1.25 * first, 0, min(loss, 1.25 * first), width=WIDTH))
    return shown


def _speeds(sizes: Sequence[Measured], size: int) -> Table:
    shown = Table(header_style="bold", title=None)
    for name in ("batch size", "samples/s", "memory"):
        shown.add_column(name, justify="right")
    shown.add_column("")
    most = max(each.speed for each in sizes)
    for each in sizes:
        mark = "←" if each.size == size else ""
        speed = f"{each.speed:,.0f} {mark:1}"
        shown.add_row(str(each.size), speed, f"{each.memory / 1e9:.2f} GB", Bar(most, 0, each.speed, width=WIDTH))
    return shown
