"""The commands `train.py` and `evaluate.py`: words in, exit code out.

A mistake is one line on standard error and exit code 2; torch is imported only when a run starts. The jobs of a sweep are
processes of their own (:mod:`recipes.launch.sweep`), because a process that has trained is no clean start: loggers, process groups
and random states stay.
"""

from __future__ import annotations

import argparse
import errno
import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.cli.flags import parse_flags
from recipes.cli.printing import NotPrinted, expect_printed, make_safe
from recipes.cli.version import asked_version, versions
from recipes.config.catalogue import FOLDER, Catalogue, UsageError, installed_folders, one_line, quoted, suggest, typed
from recipes.config.environment import keep_readable, told
from recipes.config.errors import shortened
from recipes.config.invoked import as_typed
from recipes.launch import ranks
from recipes.launch import slurm_job as slurm
from recipes.launch.identity import here
from recipes.run import memory
from recipes.store.files import remove_empty

if TYPE_CHECKING:
    from recipes.launch.sweep import Sweep

MISTAKE, FAILED, INTERRUPTED = 2, 1, 130
RUN_ID = secrets.token_hex(3)  # keeps apart the folders of runs that start in the same second


@dataclass
class Outcome:
    """What came of the task that Hydra called; Hydra itself would print an exception its own way."""

    error: BaseException | None = None
    code: int = 0
    started: bool = False


outcome = Outcome()


def main(words: Sequence[str] | None = None) -> None:
    """`train.py`: ends the process with an exit code unless all went well."""
    _exit_with(lambda: run_command(_train, words))


def evaluate_main(words: Sequence[str] | None = None) -> None:
    """`evaluate.py`: ends the process with an exit code unless all went well."""
    _exit_with(lambda: run_command(_evaluate, words))


def run_command(command: Callable[[list[str]], int], words: Sequence[str] | None) -> int:
    """The exit code of a command with its words; each tells its version."""
    found = given(words)
    if asked_version(found):
        print(versions(), end="")
        expect_printed()
        return 0
    return command(found)


def given(words: Sequence[str] | None) -> list[str]:
    """The words of a command; those that no file could hold are refused."""
    found = list(sys.argv[1:] if words is None else words)
    for word in found:
        if not word.isascii() and word.encode(errors="ignore").decode() != word:
            raise UsageError(f"{ascii(word)[1:-1]} is no text in UTF-8: type it in other letters")
    return found


def _exit_with(command: Callable[[], int]) -> None:
    make_safe()
    keep_readable()
    try:
        code = _code_of(command)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (ranks.RankError, NotPrinted, memory.OutOfMemory) as error:
        print(as_typed(f"error: {error}"), file=sys.stderr)
        code = FAILED
    except Exception as error:
        if not is_mistake(error):
            raise
        print(as_typed(f"error: {shortened(one_line(error))}"), file=sys.stderr)
        code = MISTAKE
    if code:
        sys.exit(code)


def _code_of(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as ended:
        if ended.code:
            raise
    expect_printed()  # what ends by itself, and well, is a help of argparse's or Hydra's
    return 0


def is_mistake(error: BaseException) -> bool:
    """Whether an exception is a mistake of the user's; its class may come from a module that is not imported yet."""
    base = sys.modules.get("plugins.base")
    ours = isinstance(error, UsageError) or (base is not None and isinstance(error, base.RecipeError))
    return ours or (isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG)  # names are typed


# ------------------------------------------------------------------ train.py


def _train(words: list[str]) -> int:
    if given := ranks.given():
        return _exit_code(_start(**given))
    flags = parse_flags(words)
    if flags.hydra_help or flags.shell_completion:
        return _run_hydra(flags, flags.overrides)
    from recipes.config.composing import ON_RESUME, change, check, read_run, register, resolve, search_folders

    if (mode := _value_of("hydra.mode", flags.overrides)) is not None:
        if mode not in ("RUN", "MULTIRUN") or (flags.multirun and mode == "RUN"):
            raise UsageError(f"hydra.mode={mode}: leave it out, and type -m for a sweep")
        flags.overrides = [word for word in flags.overrides if _key(word) != "hydra.mode"]
        flags.multirun = mode == "MULTIRUN"
    if (place := _value_of("sweep", flags.overrides)) is not None:
        flags.overrides = _words_of_sweep(flags, Path(place))
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
    if (resume := _value_of("resume", flags.overrides)) is not None:
        if flags.multirun:
            raise UsageError("resume cannot be part of a sweep: leave out -m")
        if flags.cfg or flags.info:
            raise UsageError(
                f"--{'cfg' if flags.cfg else 'info'} is for a run that starts: leave it out, or leave out resume={resume}"
            )
        folder = Path(resume)
        config = read_run(catalogue, folder)
        others = [word for word in flags.overrides if _key(word) not in ("resume", "hydra.searchpath")]
        config = change(catalogue, config, others, ON_RESUME, "resume")
        _expect_writable(folder)
        return _exit_code(_start(config | {"resume": resume}, folder, flags.overrides))
    _expect_folders(flags.overrides, flags.multirun)
    trains = flags.cfg is None and flags.info is None
    if trains:
        _expect_one_folder(flags.overrides, flags.multirun)
    if flags.multirun:
        flags.overrides = _sweeper_defaults(flags.overrides)
    checked = check(catalogue, flags.overrides, flags.multirun, trains)
    if flags.package not in (None, "_global_"):
        _expect_part(flags, checked)
    if flags.cfg == "job" and not flags.package and not flags.multirun:
        import yaml

        # Hydra's own answer would still hold a recipe's values for an option that the words replace
        print(yaml.safe_dump(resolve(catalogue, checked), sort_keys=False, allow_unicode=True), end="")
        expect_printed()
        return 0
    return _run_hydra(flags, checked)


def _expect_part(flags: argparse.Namespace, words: Sequence[str]) -> None:
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
        raise UsageError(f"the config has no part {part}; {suggest(part, shown, '--package {}')}")


def _value_of(key: str, words: Sequence[str]) -> str | None:
    """The value that the words give to a top-level key, null and quotes taken away."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from recipes.config.composing import parse_word

    found = [parse_word(OverridesParser.create(), word) for word in words if word.lstrip("+").startswith(f"{key}=")]
    if len(found) > 1:
        raise UsageError(f"{key} is given twice, {found[0].input_line} and {found[1].input_line}: leave one out")
    if found and found[-1].is_sweep_override():
        raise UsageError(f"{found[-1].input_line}: expected one folder; a name with a comma in quotes: '{key}=\"a,b\"'")
    value = found[-1].value() if found else None
    if isinstance(value, list | dict):
        raise UsageError(f"{found[-1].input_line}: expected one folder")
    if value is not None and not str(value).strip():
        raise UsageError(f"{key} has no name: type {key}=FOLDER")  # it would be the current folder
    return None if value is None else str(value)


def _words_of_sweep(flags: argparse.Namespace, folder: Path) -> list[str]:
    """The words of a sweep that goes on in its folder: those given now or, without any, those it was started with."""
    from recipes.config.allowed import check_settings, check_words
    from recipes.config.untrusted import check_sweep
    from recipes.store.plan import FILE, Plan

    check_sweep(folder)
    given = [word for word in flags.overrides if _key(word) != "sweep"]
    if any(_key(word) == "hydra.sweep.dir" for word in given):
        raise UsageError(f"sweep={folder} is the folder of the sweep already: leave out hydra.sweep.dir")
    hydra = [word for word in given if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    words = [word for word in given if word not in hydra]
    flags.all_jobs = not words
    if (folder / FILE).exists():
        plan = Plan.read(folder)
        if not words:  # typed words are trusted, those of a file are not: it may be somebody else's
            for said in (plan.words, *plan.jobs.values()):
                check_words(folder / FILE, said)
        words = words or plan.words
        keys = {_key(word) for word in hydra}
        said = [word for word in plan.hydra if _key(word) not in keys]
        check_settings(folder / FILE, said, None if flags.config_dir else plan.config_dir)
        hydra = [*said, *hydra]
    elif not words:
        start = f"python train.py -m seed=0,1,2 {typed('sweep', folder)}"
        raise UsageError(f"{folder} is no sweep: looked for {FILE}; to start one there, add its words: {start}")
    return [*words, *hydra, f"hydra.sweep.dir={quoted(folder)}"]


def _key(word: str) -> str:
    """What a word gives a value to."""
    return word.lstrip("+~").partition("=")[0]


def _sweeper_defaults(words: Sequence[str]) -> list[str]:
    """What makes a search fit here: the best score is looked for, the largest where the words do not tell, and a search that goes on asks for the same trials."""
    if "hydra/sweeper=optuna" not in words:
        return list(words)
    if find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        raise UsageError('hydra/sweeper=optuna needs packages of its own: pip install -e ".[optuna]"')
    from plugins.metric import larger_is_better

    mode, monitor = (_value_of(f"trainer.{name}", words) for name in ("mode", "monitor"))
    smallest = mode == "min" or (mode is None and monitor is not None and larger_is_better(monitor) is False)
    defaults = [f"hydra.sweeper.direction={'minimize' if smallest else 'maximize'}"]
    if "hydra/sweeper/sampler=grid" not in words:
        defaults.append("hydra.sweeper.sampler.seed=0")
    keys = {_key(word) for word in words}
    return [*words, *(word for word in defaults if _key(word) not in keys)]


def _expect_one_folder(words: Sequence[str], multirun: bool) -> None:
    """Refuse processes that were started side by side for one run, but would each make a folder of its own."""
    several = here().one_of_several
    if several and multirun:
        raise UsageError("a sweep starts its jobs itself: start one process with -m, not several")
    if several and not any(word.startswith("hydra.run.dir=") for word in words):
        raise UsageError("several processes were started for one run: give them one folder, hydra.run.dir=FOLDER")


def _expect_folders(words: Sequence[str], multirun: bool) -> None:
    """Refuse an output folder before Hydra writes into it: without a name it would be the current one."""
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        _value_of(key, words)
    if multirun and (place := _value_of("hydra.sweep.dir", words)) is not None and "${" not in place:
        from recipes.store.plan import expect_sweep_or_empty

        expect_sweep_or_empty(Path(place))
    if multirun and any(word.lstrip("+").startswith("overwrite=") for word in words):
        raise UsageError(
            "overwrite is for a single run: a sweep keeps the jobs that are finished; for others type sweep=FOLDER"
        )


def _expect_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the output folder {folder} cannot be written; choose another one: hydra.run.dir=FOLDER")


def _run_hydra(flags: argparse.Namespace, words: Sequence[str]) -> int:
    """Hand checked words to Hydra, which makes the folder and calls :func:`task`, once or for each job of a sweep."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_new_resolver("run_id", lambda: RUN_ID, replace=True)
    passed_on = ["--multirun"] * flags.multirun + ["--resolve"] * flags.resolve + ["--run"] * flags.run
    for name in ("cfg", "info", "package", "config_dir"):
        if value := getattr(flags, name):
            passed_on += [f"--{name.replace('_', '-')}", value]
    for name in ("hydra_help", "shell_completion"):
        passed_on += [f"--{name.replace('_', '-')}"] * getattr(flags, name)
    sys.argv[1:] = [*passed_on, *words]  # where Lightning, too, looks for the command of its further processes
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed
    outcome.__init__()  # type: ignore[misc]
    try:
        hydra.main(config_path=str(FOLDER), config_name="train", version_base="1.3")(task)()
    except OSError as error:
        if outcome.started:
            raise
        raise UsageError(f"the output folder cannot be written: {error.strerror}: {error.filename}") from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        sweep = _sweep()
        if outcome.started or (sweep and any(job.score is not None for job in sweep.jobs)):
            raise
        if not sweep or not sweep.jobs:  # what Hydra, its sweeper or its launcher do not take, before the first job
            raise UsageError(one_line(error.__cause__ or error)) from None
        # else Optuna's end of a search in which no job has a score
    if outcome.error is not None:
        raise outcome.error
    if flags.cfg or flags.info or flags.shell_completion:
        expect_printed()
    return _end_sweep(sweep, flags.all_jobs) if (sweep := _sweep()) else outcome.code


def _sweep() -> Sweep | None:
    """The sweep that this process has run."""
    return sys.modules["recipes.launch.sweep"].current if "recipes.launch.sweep" in sys.modules else None


def _end_sweep(sweep: Sweep, all_jobs: bool) -> int:
    """Compare the runs of a sweep, and say which failed; `all_jobs`: those of earlier starts are run first."""
    from recipes.launch.search import best_of_search
    from recipes.store.plan import remove_sweep

    if all_jobs:
        sweep.run_rest()
    remove_sweep(sweep.folder)  # if all was explained, and nothing trained
    code = 0
    if any(job.result.get("status") == "finished" for job in sweep.jobs):
        from recipes.cli.compare import present

        try:
            present([sweep.folder], sweep.folder)
        except UsageError as error:  # such as a full disk
            print(f"error: {one_line(error)}", file=sys.stderr)
            code = FAILED
        if best := best_of_search(sweep.folder):
            print(f"best     {best}")
    if sweep.diverged:
        lines = "\n".join(f"  {job.name}: {job.result.get('error')}; {job.folder}" for job in sweep.diverged)
        print(f"{len(sweep.diverged)} of {len(sweep.jobs)} jobs diverged:\n{lines}", file=sys.stderr)
        if not any(job.result.get("status") == "finished" for job in sweep.jobs):
            code = FAILED
    if not sweep.failed:
        return code
    failed = "\n".join(f"  {job.name}: {job.error}; {job.folder}" for job in sweep.failed)
    print(f"error: {len(sweep.failed)} of {len(sweep.jobs)} jobs failed:\n{failed}", file=sys.stderr)
    print(as_typed(f"to run them again: python train.py -m {typed('sweep', sweep.folder)}"), file=sys.stderr)
    return FAILED


def task(config: Any) -> float | None:
    """What Hydra calls for a run, or for each job of a sweep; returns the metric that chose the best model."""
    from hydra.core.hydra_config import HydraConfig

    from recipes.config.composing import finish, searched_folders

    settings = HydraConfig.get()
    folder, words = Path(settings.runtime.output_dir), list(settings.overrides.task)
    outcome.started = True
    try:
        _expect_writable(folder)
        catalogue = Catalogue(searched_folders(settings.runtime.config_sources))
        plain = finish(catalogue, config, words)
        if not plain["explain"]:
            plain = _claimed(catalogue, plain, folder, words)
        result = _start(plain, folder, words)
    except BaseException as error:
        remove_empty(folder)
        outcome.error = error
        return None
    remove_empty(folder)
    outcome.code = _exit_code(result)
    return _score(result)


def _claimed(catalogue: Catalogue, config: dict[str, Any], folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """The config of a run in a folder that it may have: that of the run which is in it where it goes on with that."""
    from recipes.config.composing import read_run
    from recipes.launch.job import can_go_on
    from recipes.store.claim import Claim, claim
    from recipes.store.plan import is_job

    found = claim(folder, words, config["overwrite"], slurm.restarts() > 0, is_job(folder, words))
    if found == Claim.GO_ON and can_go_on(folder):
        return read_run(catalogue, folder) | {"resume": str(folder)}
    return {**config, "overwrite": found == Claim.REPLACE}


def _start(config: dict[str, Any], folder: Path, words: Sequence[str]) -> dict[str, Any]:
    ranks.end_with_parent()
    if ranks.rank() == 0 and ranks.node() == 0:
        ranks.forget_earlier(folder)
    slurm.listen(*(slurm.ASKING if ranks.world() > 1 else ()))
    ranks.end_with_others(folder)
    try:
        ranks.check_started(config["trainer"])
        if count := ranks.to_start(config):
            return ranks.train(count, config, folder, words)
        with memory.told(config):
            with told():
                from recipes.run.run import train

            result = train(config, folder, list(words))
    except BaseException as error:
        ranks.fail(folder, error, MISTAKE if is_mistake(error) else FAILED, is_mistake(error))
        raise
    if result.get("status") == "stopped" and ranks.rank() == 0:  # for all
        slurm.come_back(str(result.get("stopped_by")))
    return result


def _exit_code(result: dict[str, Any]) -> int:
    """0, or 1 if the run has diverged, or the code of the signal that stopped the run; 0 too if the run comes back.

    Only the first rank ends with it: the end of another one, which has less to do, would be the end of all.
    """
    if result.get("status") == "explained":
        expect_printed()
    if result.get("status") == "diverged" and not ranks.rank():
        return FAILED
    if result.get("status") != "stopped" or slurm.comes_back(str(result.get("stopped_by"))) or ranks.rank():
        return 0
    return 128 + getattr(signal, str(result.get("stopped_by")), signal.SIGINT)


def _score(result: dict[str, Any]) -> float:
    """The metric that chose the best model; not a number where there is none, and for a run that has diverged."""
    if result.get("status") == "diverged":
        return float("nan")
    return float(result.get("metrics", {}).get(result.get("monitor"), float("nan")))


# ------------------------------------------------------------------ evaluate.py


def _expect_same_split(trained: dict[str, Any], tested: dict[str, Any]) -> None:
    """Refuse another split of the same data: it would test on samples that were trained on."""

    def source(node: dict[str, Any]) -> list[Any]:
        places = [Path(node[name]).resolve() for name in ("path", "root") if node.get(name)]
        return [node.get("_target_"), node.get("name"), *places]

    name = "standardize_targets"
    if trained.get(name, tested.get(name)) != tested.get(name):
        raise UsageError(f"data.{name} is part of the trained model: leave it out")
    for name in ("split_seed", "test", "validation"):
        if source(trained) == source(tested) and trained.get(name) != tested.get(name):
            raise UsageError(f"data.{name} cannot be changed on evaluation: the test would have samples that were trained on")


def _evaluate(words: list[str]) -> int:
    flags = parse_flags(words, "evaluate.py")
    if ranks.world() > 1:
        raise UsageError("evaluate.py tests in one process: start one, not several")
    from recipes.config.composing import ON_EVALUATION, change, read_run, search_folders

    catalogue = Catalogue([*installed_folders(), *search_folders([], flags.config_dir)])
    if flags.help:
        from recipes.config.help import evaluate_help

        asked = [word for word in flags.overrides if not Path(word).is_dir()]  # the run may stand there, too
        print(as_typed(evaluate_help(catalogue, ON_EVALUATION, asked)), end="")
        expect_printed()
        return 0
    folders = [word for word in flags.overrides if "=" not in word or Path(word).is_dir()]
    if len(folders) != 1:
        raise UsageError(f"expected one run folder, got {' and '.join(folders) or 'none'}: python evaluate.py RUN_FOLDER")
    folder, changes = Path(folders[0]), [word for word in flags.overrides if word != folders[0]]
    several = [word for word in changes if _key(word) in ("trainer.devices", "trainer.num_nodes", "trainer.strategy")]
    if several:
        raise UsageError(f"evaluate.py tests on one device: leave out {' and '.join(several)}")
    trained = read_run(catalogue, folder)
    config = change(catalogue, trained, changes, ON_EVALUATION, "evaluation")
    _expect_same_split(trained["data"], config["data"])
    with memory.told(config):
        with told():
            from recipes.run.run import evaluate

        evaluate(folder, config, changes)
    expect_printed()
    return 0
