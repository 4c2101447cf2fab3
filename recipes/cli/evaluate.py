"""The command `evaluate.py`."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from plugins.errors import RecipeError
from recipes.cli.exits import exit_with, run_command
from recipes.cli.flags import parse_flags
from recipes.cli.printing import expect_printed
from recipes.cli.words import each_value, expect_one_device, folders_among, learn_own
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.environment import told
from recipes.config.invoked import as_typed
from recipes.launch import ranks
from recipes.run import memory


def main(words: Sequence[str] | None = None) -> None:
    """`evaluate.py`: ends the process with an exit code unless all went well."""
    exit_with(lambda: run_command(_evaluate, words))


def _evaluate(words: list[str]) -> int:
    flags = parse_flags(words, "evaluate.py")
    if ranks.world() > 1:
        raise RecipeError("evaluate.py tests in one process: start one, not several")
    from recipes.config.changing import ON_EVALUATION, change, expect_same_split, read_run
    from recipes.config.own import typed_again, warn_of_changes
    from recipes.config.searching import search_folders

    learn_own(flags)
    catalogue = Catalogue([*installed_folders(), *search_folders([], flags.config_dir)])
    if flags.help:
        from recipes.config.help import evaluate_help

        asked = [word for word in flags.overrides if not Path(word).is_dir()]  # the run may stand there, too
        print(as_typed(evaluate_help(catalogue, ON_EVALUATION, asked)), end="")
        expect_printed()
        return 0
    folders = folders_among(flags.overrides)
    if not folders:
        raise RecipeError("expected one run folder, got none: python evaluate.py RUN_FOLDER")
    places = [Path(folder).resolve() for folder in folders]
    if again := [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise RecipeError(f"{again[0]} is given twice: leave one out")
    words = [word for word in flags.overrides if word not in folders]
    expect_one_device("evaluate.py", "tests", words)
    jobs = []
    for folder in map(Path, folders):
        trained = read_run(catalogue, folder)
        own = typed_again(trained, words)
        warn_of_changes(trained, folder)
        for changes, values in each_value(catalogue, own):
            config = change(catalogue, trained, changes, ON_EVALUATION, "evaluation")
            expect_same_split(trained["data"], config["data"])
            jobs.append((folder, config, changes, values))
    with memory.told(jobs[0][1]):
        with told():
            from recipes.run.evaluate import evaluate
            from recipes.run.evaluations import evaluate_each

        gc.freeze()  # it stays: looking through it takes half a second each time
        if len(jobs) == 1:
            evaluate(*jobs[0][:3])
        else:
            evaluate_each(jobs)
    expect_printed()
    return 0
