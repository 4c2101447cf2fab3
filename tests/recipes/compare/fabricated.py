"""Run folders as runs leave them, for tests of what reads them; the configs are those that train.py composes."""

from __future__ import annotations

import copy
import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish

VERSIONS = {"python": "3.11.7", "torch": "2.15.0"}


@cache
def _config(words: tuple[str, ...]) -> dict[str, Any]:
    return finish(Catalogue(), compose(list(words)), list(words))


def config(*words: str, seed: int = 0) -> dict[str, Any]:
    """The resolved config of `python train.py WORDS seed=SEED`."""
    return {**copy.deepcopy(_config(words)), "seed": seed}


def leave(
    folder: Path, *words: str, seed: int = 0, metrics: dict[str, float] | None = None, curve: dict | None = None, **result: Any
) -> Path:
    """Leave a finished run, or one with another `status`; `curve` has a column of metrics.csv by name, a value an epoch."""
    folder.mkdir(parents=True)
    whole = {
        "status": "finished",
        "config": config(*words, seed=seed),
        "command": [*words, f"seed={seed}"],
        "seed": seed,
        "metrics": {"test/acc": 0.5, "test/loss": 1.5} if metrics is None else metrics,
        "versions": VERSIONS,
        "git_commit": "0" * 40,
        "machine": "CPU, 1 threads",
        "monitor": "val/acc",
        "best_step": 20,
        "steps": 20,
        "epochs": 2.0,
        "phases": 1,
        "stopped_early": False,
        "seconds": 10.0,
        "samples_per_second": 100.0,
        "parameters": 650,
        "peak_memory": 500_000_000,
    }
    (folder / "result.json").write_text(json.dumps(whole | result))
    if curve:
        length = max(map(len, curve.values()))
        with open(folder / "metrics.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "epoch", *curve])
            for epoch in range(length):
                writer.writerow([10 * (epoch + 1), epoch, *(values[epoch] for values in curve.values())])
    return folder


def leave_group(place: Path, name: str, values: list[float], *words: str, metric: str = "test/acc", **result: Any) -> None:
    """Leave a run for each value of the metric, with seeds 0, 1, 2, …"""
    for seed, value in enumerate(values):
        leave(place / f"{name}{seed}", *words, seed=seed, metrics={metric: value}, **result)
