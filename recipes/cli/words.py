"""Words of the command line that are looked at before a config is composed: folders, sweeps, searches, parts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.quoting import quoted, typed
from recipes.config.run_files import JOBS
from recipes.config.spelling import suggest
from recipes.launch.identity import here


def learn_own(flags: argparse.Namespace) -> None:
    """Make options of the classes of a user's own that the words name, so that all that follows knows them."""
    from recipes.config.own import learn
    from recipes.config.searching import search_folders

    flags.overrides = learn(flags.overrides, search_folders(flags.overrides, flags.config_dir))


def expect_part(flags: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuse a part of the config that there is not, or that is null."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from recipes.config.composing import compose

    config, part = compose(words), str(flags.package)
    shown = [str(key) for key in config if flags.cfg == "all" or (key == "hydra") == (flags.cfg == "hydra")]
    try:
        found = part.partition(".")[0] in shown and OmegaConf.select(config, part) is not None
    except OmegaConfBaseException:
        found = False
    if not found:
        raise RecipeError(f"the config has no part {part}; {suggest(part, shown, '--package {}')}")


def folders_among(words: Sequence[str]) -> list[str]:
    """The words that name folders of runs, not what is changed."""
    return [word for word in words if "=" not in word or Path(word).is_dir()]


def expect_one_device(script: str, does: str, words: Sequence[str]) -> None:
    """Refuse words for several devices where a command has one."""
    if several := [word for word in words if key_of(word) in ("trainer.devices", "trainer.num_nodes", "trainer.strategy")]:
        raise RecipeError(f"{script} {does} on one device: leave out {' and '.join(several)}")


def value_of(key: str, words: Sequence[str]) -> str | None:
    """The value that the words give to a top-level key, null and quotes taken away."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from recipes.config.words import parse_word

    found = [parse_word(OverridesParser.create(), word) for word in words if word.lstrip("+").startswith(f"{key}=")]
    if len(found) > 1:
        raise RecipeError(f"{key} is given twice, {found[0].input_line} and {found[1].input_line}: leave one out")
    if found and found[-1].is_sweep_override():
        raise RecipeError(f"{found[-1].input_line}: expected one folder; a name with a comma in quotes: '{key}=\"a,b\"'")
    value = found[-1].value() if found else None
    if isinstance(value, list | dict):
        raise RecipeError(f"{found[-1].input_line}: expected one folder")
    if value is not None and not str(value).strip():
        raise RecipeError(f"{key} has no name: type {key}=FOLDER")  # it would be the current folder
    return None if value is None else str(value)


def words_of_sweep(flags: argparse.Namespace, folder: Path) -> list[str]:
    """The words of a sweep that goes on in its folder: those given now or, without any, those it was started with."""
    from recipes.config.allowed import check_settings, check_words
    from recipes.config.own import own_words
    from recipes.config.places import check_sweep
    from recipes.store.plan import Plan

    check_sweep(folder)
    given = [word for word in flags.overrides if key_of(word) != "sweep"]
    if any(key_of(word) == "hydra.sweep.dir" for word in given):
        raise RecipeError(f"sweep={folder} is the folder of the sweep already: leave out hydra.sweep.dir")
    hydra = [word for word in given if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    words = [word for word in given if word not in hydra]
    plan = Plan.read(folder) if (folder / JOBS).exists() else None
    if plan and words and {*words} <= {*own_words(words)} & {*plan.words}:  # typed again, to trust them
        words = []
    flags.all_jobs = not words
    if plan:
        if not words:  # typed words are trusted, those of a file are not: it may be somebody else's
            for said in (plan.words, *plan.jobs.values()):
                check_words(folder / JOBS, said)
        words = words or plan.words
        keys = {key_of(word) for word in hydra}
        said = [word for word in plan.hydra if key_of(word) not in keys]
        check_settings(folder / JOBS, said, None if flags.config_dir else plan.config_dir)
        hydra = [*said, *hydra]
    elif not words:
        start = f"python train.py -m seed=0,1,2 {typed('sweep', folder)}"
        raise RecipeError(f"{folder} is no sweep: looked for {JOBS}; to start one there, add its words: {start}")
    return [*words, *hydra, f"hydra.sweep.dir={quoted(folder)}"]


def key_of(word: str) -> str:
    """What a word gives a value to."""
    return word.lstrip("+~").partition("=")[0]


def expect_search_packages(words: Sequence[str]) -> None:
    """Refuse a search without Optuna."""
    if "hydra/sweeper=optuna" in words and find_spec("optuna") is None:
        raise RecipeError('hydra/sweeper=optuna needs a package of its own: pip install -e ".[optuna]"')


def expect_one_folder(words: Sequence[str], multirun: bool) -> None:
    """Refuse processes that were started side by side for one run, but would each make a folder of its own."""
    several = here().one_of_several
    if several and multirun:
        raise RecipeError("a sweep starts its jobs itself: start one process with -m, not several")
    if several and not any(word.startswith("hydra.run.dir=") for word in words):
        raise RecipeError("several processes were started for one run: give them one folder, hydra.run.dir=FOLDER")


def expect_folders(words: Sequence[str], multirun: bool) -> None:
    """Refuse an output folder before Hydra writes into it: without a name it would be the current one."""
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        value_of(key, words)
    if multirun and (place := value_of("hydra.sweep.dir", words)) is not None and "${" not in place:
        from recipes.store.plan import expect_sweep_or_empty

        expect_sweep_or_empty(Path(place))
    if multirun and any(word.lstrip("+").startswith("overwrite=") for word in words):
        raise RecipeError(
            "overwrite is for a single run: a sweep keeps the jobs that are finished; for others type sweep=FOLDER"
        )


def each_value(catalogue: Catalogue, words: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The words of each evaluation: of a list of values, such as adversarial.eps=0,0.1, one. Beside them what differs, by key."""
    from recipes.config.parsing import parse
    from recipes.config.syntax import expand

    overrides = [[override] if override.is_interval_sweep() else expand(override) for override in parse(catalogue, words)]
    for chosen in product(*overrides):
        lines = [str(override.input_line) for override in chosen]
        varied = [line for line, values in zip(lines, overrides, strict=True) if len(values) > 1]
        yield lines, {key_of(line): line.partition("=")[2] for line in varied}
