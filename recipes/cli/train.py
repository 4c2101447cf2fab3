"""The command `train.py`: words in, exit code out.

A mistake is one line on standard error and exit code 2; torch is imported only when a run starts. The jobs of a sweep are
processes of their own (:mod:`recipes.launch.sweep`), because a process that has trained is no clean start: loggers, process groups
and random states stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plugins.errors import RecipeError
from recipes.cli.exits import exit_with, run_command
from recipes.cli.flags import parse_flags
from recipes.cli.hydra_task import run_hydra, run_once
from recipes.cli.printing import expect_printed
from recipes.cli.start import exit_code, expect_writable, start
from recipes.cli.words import (
    expect_folders,
    expect_one_folder,
    expect_part,
    expect_search_packages,
    key_of,
    learn_own,
    value_of,
    words_of_sweep,
)
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.invoked import as_typed
from recipes.launch import parent, warm, watch
from recipes.launch import slurm_job as slurm


def main(words: Sequence[str] | None = None) -> None:
    """`train.py`: ends the process with an exit code unless all went well."""
    parent.find()
    if warm.is_wanted():
        given = warm.serve()
        warm.go_on(lambda: exit_with(lambda: run_command(_train, given)))
    exit_with(lambda: run_command(_train, words))


# ------------------------------------------------------------------ train.py


def _train(words: list[str]) -> int:
    if given := watch.given():
        learn_own(parse_flags(words))
        return exit_code(start(**given))
    flags = parse_flags(words)
    from recipes.config.searching import register, search_folders

    if flags.hydra_help or flags.shell_completion:
        register(installed_folders())
        return run_hydra(flags, flags.overrides)
    from recipes.config.changing import ON_RESUME, change, read_run
    from recipes.config.composing import compose_checked, resolve
    from recipes.config.handed import taken_over
    from recipes.config.own import expect_unchanged, typed_again

    learn_own(flags)
    if (mode := value_of("hydra.mode", flags.overrides)) is not None:
        if mode not in ("RUN", "MULTIRUN") or (flags.multirun and mode == "RUN"):
            raise RecipeError(f"hydra.mode={mode}: leave it out, and type -m for a sweep")
        flags.overrides = [word for word in flags.overrides if key_of(word) != "hydra.mode"]
        flags.multirun = mode == "MULTIRUN"
    if (place := value_of("sweep", flags.overrides)) is not None:
        flags.overrides = words_of_sweep(flags, Path(place))
        flags.multirun = True
    if not flags.multirun:
        slurm.listen("SIGHUP", "SIGTERM")  # a run that is still loading ends with a saved state, too
    folders = [*installed_folders(), *search_folders(flags.overrides, flags.config_dir)]
    catalogue = Catalogue(folders)
    if flags.help:
        from recipes.config.help import train_help

        register(folders)
        print(as_typed(train_help(catalogue, flags.overrides)), end="")
        expect_printed()
        return 0
    register(folders)
    if (resume := value_of("resume", flags.overrides)) is not None:
        if flags.multirun:
            raise RecipeError("resume cannot be part of a sweep: leave out -m")
        if flags.cfg or flags.info:
            raise RecipeError(
                f"--{'cfg' if flags.cfg else 'info'} is for a run that starts: leave it out, or leave out resume={resume}"
            )
        folder = Path(resume)
        config = read_run(catalogue, folder)
        typed = typed_again(config, flags.overrides)
        others = [word for word in typed if key_of(word) not in ("resume", "hydra.searchpath")]
        config = change(catalogue, config, others, ON_RESUME, "resume")
        expect_unchanged(config, folder)
        expect_writable(folder)
        return exit_code(start(config | {"resume": resume}, folder, typed))
    expect_folders(flags.overrides, flags.multirun)
    trains = flags.cfg is None and flags.info is None
    if trains:
        expect_one_folder(flags.overrides, flags.multirun)
    if flags.multirun:
        expect_search_packages(flags.overrides)
    handed = None if flags.multirun else taken_over(flags.overrides, warm.composed)
    checked = handed or compose_checked(catalogue, flags.overrides, flags.multirun, trains)
    if flags.package not in (None, "_global_"):
        expect_part(flags, checked.words)
    if flags.cfg == "job" and not flags.package and not flags.multirun:
        import yaml

        # Hydra's own answer would still hold a recipe's values for an option that the words replace
        print(yaml.safe_dump(resolve(catalogue, checked.words), sort_keys=False, allow_unicode=True), end="")
        expect_printed()
        return 0
    return run_once(flags, checked) if trains and not flags.multirun else run_hydra(flags, checked.words)
