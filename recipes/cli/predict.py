"""The command `predict.py`."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from plugins.errors import RecipeError
from recipes.cli.exits import exit_with, run_command
from recipes.cli.flags import parse_flags
from recipes.cli.printing import expect_printed
from recipes.cli.words import expect_one_device, folders_among, key_of, learn_own, value_of
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.environment import told
from recipes.config.invoked import as_typed
from recipes.launch import ranks

OUTPUT = "predictions.csv"  # where nothing else is said


def main(words: Sequence[str] | None = None) -> None:
    """`predict.py`: ends the process with an exit code unless all went well."""
    exit_with(lambda: run_command(_predict, words))


def _predict(words: list[str]) -> int:
    flags = parse_flags(words, "predict.py")
    if ranks.world() > 1:
        raise RecipeError("predict.py predicts in one process: start one, not several")
    from recipes.config.changing import ON_PREDICTION, read_run
    from recipes.config.own import typed_again
    from recipes.config.searching import search_folders

    learn_own(flags)
    catalogue = Catalogue([*installed_folders(), *search_folders([], flags.config_dir)])
    if flags.help:
        from recipes.config.help import predict_help

        asked = [word for word in flags.overrides if not Path(word).is_dir()]
        print(as_typed(predict_help(catalogue, ON_PREDICTION, asked)), end="")
        expect_printed()
        return 0
    folders = folders_among(flags.overrides)
    if not folders:
        raise RecipeError("expected one run folder or several: python predict.py RUN_FOLDER output=predictions.csv")
    changes = [word for word in flags.overrides if word not in folders and key_of(word) != "output"]
    output = value_of("output", flags.overrides) or OUTPUT
    expect_one_device("predict.py", "predicts", changes)
    from recipes.run import memory

    first = read_run(catalogue, Path(folders[0]))
    changes = typed_again(first, changes)
    with memory.told(first):
        with told():
            from recipes.run.predict import predict

        gc.freeze()  # it stays: looking through it takes half a second each time
        predict(catalogue, [Path(folder) for folder in folders], changes, Path(output))
    expect_printed()
    return 0
