"""What the words in a sweep's folder may say: a list of what is allowed. Whatever else is in there is to be typed again.

A word that is typed is trusted, one that a file says is not: the file may be somebody else's. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from plugins.errors import RecipeError
from recipes.config.errors import one_line, printable
from recipes.config.kinds import is_count, is_flag, is_number
from recipes.config.own import unknown_words
from recipes.config.quoting import quote, typed
from recipes.config.sweepers import PRUNERS, SAMPLERS

# references to other values of the config, and to a job's number; nothing that reads the machine
REFERENCE = re.compile(r"\$\{(hydra:job\.(num|id)|(?!hydra\b)\w+(\.\w+)*)\}")
NOT_FROM_A_FILE = ("resume", "sweep")  # keys that name another folder to work in
NAME = re.compile(r"[\w.,:@/+&|*\[\]()-]*")  # what Slurm takes for the name of something; lands in a script
SUBDIR = re.compile(r"(?!.*\.\.)(?:[\w.,=+/-]|\$\{hydra[:.]job\.(?:num|id|override_dirname)\})*")


def one_of(*choices: str) -> Callable[[object], bool]:
    """Whether a value is one of these."""
    return lambda value: value in choices


def each_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    """Whether a value, or each of a list of them, fits."""
    return lambda value: all(map(fits, value if isinstance(value, list) else [value]))


def is_name(value: object) -> bool:
    """Whether a value names something of a cluster, without blanks and line breaks."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def is_setting(value: object) -> bool:
    """Whether a value is a number, or true or false."""
    return is_number(value) or is_flag(value)


SLURM_NUMBERS = ("timeout_min", "nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb", "signal_delay_s")
# the settings of Hydra that a sweep goes on with
SETTINGS: dict[str, Callable[[object], bool]] = {
    "hydra/launcher": one_of("processes", "slurm", "ray"),
    "hydra/sweeper": one_of("basic", "optuna"),
    "hydra/sweeper/sampler": one_of(*SAMPLERS),
    "hydra.sweep.subdir": lambda value: isinstance(value, str | int) and SUBDIR.fullmatch(str(value)) is not None,
    "hydra.launcher.n_jobs": is_count,
    "hydra.launcher.jobs_per_gpu": is_count,
    "hydra.launcher.start": one_of("warm", "fresh"),
    **{f"hydra.launcher.{name}": is_number for name in (*SLURM_NUMBERS, "max_num_timeout")},
    **{f"hydra.launcher.{name}": is_name for name in ("partition", "account", "qos", "constraint", "exclude", "name")},
    **{f"hydra.launcher.ray.init.{name}": is_number for name in ("num_cpus", "num_gpus")},
    **{f"hydra.launcher.ray.remote.{name}": is_number for name in ("num_cpus", "num_gpus", "memory")},
    "hydra.launcher.ray.init.address": one_of("auto"),
    "hydra.launcher.ray.remote.accelerator_type": is_name,
    "hydra.sweeper.n_trials": is_count,
    "hydra/sweeper/pruner": one_of(*PRUNERS),
    "hydra.sweeper.n_jobs": is_count,
    "hydra.sweeper.max_batch_size": is_count,
    "hydra.sweeper.direction": each_of(one_of("maximize", "minimize")),
    "hydra.sweeper.objectives": each_of(is_name),
    "hydra.sweeper.budget": is_name,
    "hydra.sweeper.repeats": is_count,
    "hydra.sweeper.max_failure_rate": is_number,
    **{
        f"hydra.sweeper.{group}.{name}": lambda value: is_setting(value) or is_name(value)
        for group, options in (("sampler", SAMPLERS), ("pruner", PRUNERS))
        for option in options.values()
        for name in option
    },
}


def check_words(path: Path, words: Iterable[str]) -> None:
    """Raise for a word of a sweep, or of a job, that a file may not say: it is no value of the config, or reads the machine."""
    for word in words:
        override = _parsed(path, word)
        key = override.key_or_group
        if override.is_hydra_override() or key == "hydra" or key in NOT_FROM_A_FILE or override.package is not None:
            raise _refused(path, word, "it is no value of a config")
        if unknown_words([word]):
            raise RecipeError(
                f"{path} says {printable(word)}, a class of one's own, whose file would be run: to go on with it type it again: "
                f"python train.py {typed('sweep', path.parent)} {quote(printable(word))}"
            )
        text = "" if override.is_delete() else override.get_value_string()
        if "${" in REFERENCE.sub("", text):
            raise _refused(path, word, "it reads more than the config")
        if key == "data.download" and text.lower() != "false":
            root = [_parsed(path, other).value() for other in words if other.lstrip("+").startswith("data.root=")]
            if not may_download(str(root[-1]) if root else "data"):
                raise _refused(path, word, "it would write outside of the working folder")


def check_settings(path: Path, words: Sequence[str], config_dir: str | None) -> None:
    """Raise for a setting of Hydra in a file that is not in the list, or a config folder: options there name any code."""
    if config_dir is not None:
        raise RecipeError(
            f"{path} names the config folder {printable(config_dir)}, whose options may run any code: to go on with it type it "
            f"again: python train.py {typed('sweep', path.parent)} --config-dir {quote(printable(config_dir))}"
        )
    for word in words:
        override = _parsed(path, word)
        # Hydra makes what _target_ names.
        names_code = any(part.startswith("_") for part in re.split(r"[./]", override.key_or_group))
        allowed = None if names_code else SETTINGS.get(override.key_or_group)
        value = None if override.is_delete() or override.is_sweep_override() else override.value()
        value = str(value) if value.__class__.__name__ == "QuotedString" else value
        fine = allowed and not override.is_delete() and not override.is_sweep_override() and (value is None or allowed(value))
        if not fine or override.package is not None:
            raise RecipeError(
                f"{path} says {printable(word)}, which is not taken from a file, as it may run code or write elsewhere: to go "
                f"on with it type it again: python train.py {typed('sweep', path.parent)} {quote(printable(word))}"
            )


def may_download(root: str) -> bool:
    """Whether a file may have data downloaded to a folder: one in the working folder."""
    here = Path.cwd().resolve()
    place = Path(root).resolve()
    return place == here or here in place.parents


def keep_at_home(config: Mapping[str, Any]) -> None:
    """Have the config of a run folder download nothing to other places than the working folder."""
    data = config.get("data")
    if isinstance(data, dict) and data.get("download") and not may_download(str(data.get("root", "data"))):
        data["download"] = False


def _parsed(path: Path, word: str) -> Override:
    """A word as Hydra reads it; no flag, nothing that a terminal would show in another way than it is."""
    if not re.match(r"[+~]{0,2}\w", word) or word != printable(word, "\n\t"):
        raise RecipeError(f"{path} is not what a sweep writes: {printable(word)!r} is no word of the form KEY=VALUE")
    try:
        return OverridesParser.create().parse_overrides([word])[0]
    except (HydraException, RecursionError) as error:
        reason = one_line(error)
        raise RecipeError(f"{path} is not what a sweep writes: {printable(word)!r} cannot be read ({reason})") from None


def _refused(path: Path, word: str, why: str) -> RecipeError:
    return RecipeError(
        f"{path} says {printable(word)}, which is not taken from a file: {why}; to go on all the same type the words of the "
        f"sweep again: python train.py -m WORDS {typed('sweep', path.parent)}"
    )
