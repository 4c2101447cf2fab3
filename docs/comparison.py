"""Draw the README's picture: validation accuracy over epochs and test accuracy, over seeds, of groups of run folders.

python docs/comparison.py OUTPUT.png "NAME=FOLDER/*" "NAME=FOLDER/*" ...
"""

import csv
import glob
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS = ("#8a8a8a", "#c2410c", "#0f766e", "#4338ca")


def curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and validation accuracies of a run."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/acc")]
    return np.array([int(row["step"]) for row in rows]), np.array([float(row["val/acc"]) for row in rows])


def main(output: str, *groups: str) -> None:
    """Two panels: curves with a band of one standard deviation, and one point a seed."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), width_ratios=[3, 2], constrained_layout=True)
    names = []
    for colour, group in zip(COLOURS, groups, strict=False):
        name, _, pattern = group.partition("=")
        folders = [Path(folder) for folder in sorted(glob.glob(pattern)) if (Path(folder) / "result.json").exists()]
        results = [json.loads((folder / "result.json").read_text()) for folder in folders]
        if not results or any(result["status"] != "finished" for result in results):
            sys.exit(f"{pattern}: no runs, or some that are not finished")
        steps = curve(folders[0])[0]
        values = 100 * np.array([curve(folder)[1] for folder in folders])
        epochs = steps / steps[0]
        mean, deviation = values.mean(0), values.std(0, ddof=1)
        left.plot(epochs, mean, color=colour, label=name, marker="o", markersize=3)
        left.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
        tests = 100 * np.array([result["metrics"]["test/acc"] for result in results])
        place = len(names)
        right.plot(tests, np.full(len(tests), place), "o", color=colour, alpha=0.6)
        right.plot([tests.mean()] * 2, [place - 0.25, place + 0.25], color=colour, linewidth=2)
        text = f"{tests.mean():.2f} ± {tests.std(ddof=1):.2f} % (n={len(tests)})"
        right.text(tests.mean(), place + 0.32, text, ha="center", va="bottom", color=colour)
        print(f"{name}: test accuracy {text}")
        names.append(name)
    left.set(xlabel="epoch", ylabel="validation accuracy, %", xticks=epochs)
    left.legend(frameon=False, loc="lower right")
    right.set(xlabel="test accuracy, %", yticks=range(len(names)), yticklabels=names, ylim=(-0.5, len(names) - 0.1))
    right.margins(x=0.35)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    figure.savefig(output, dpi=130)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
