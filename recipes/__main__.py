"""`python -m recipes WORDS`: as `train.py`; `evaluate RUN`, `predict RUN`, `export RUN` and `compare FOLDERS`: as those scripts; `check PACKAGE`: its options;
`clean FOLDERS`: what finished runs need no more."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ENTRIES = {
    "train": ("recipes.cli.train", "main"),
    "evaluate": ("recipes.cli.evaluate", "main"),
    "predict": ("recipes.cli.predict", "main"),
    "export": ("recipes.cli.export", "main"),
    "compare": ("recipes.cli.compare", "main"),
    "clean": ("recipes.cli.clean", "main"),
    "check": ("recipes.cli.check", "main"),
}


def main() -> None:
    """The command that the first word names; without one, training."""
    name = sys.argv.pop(1) if sys.argv[1:2] and sys.argv[1] in ENTRIES else "train"
    module, function = ENTRIES[name]
    getattr(import_module(module), function)()


if __name__ == "__main__":
    if not __package__:  # run as a file, as a sweep starts its jobs
        sys.path[0] = str(Path(__file__).resolve().parents[1])
    main()
