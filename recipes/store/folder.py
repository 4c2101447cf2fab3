"""What a run leaves in its folder: config.yaml, result.json, confusion.json, train.log; and the table at its end."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import math
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plugins.base import Task
from recipes.config.catalogue import quote, show
from recipes.config.errors import printable
from recipes.config.invoked import as_typed
from recipes.launch import ranks
from recipes.store import shapes
from recipes.store.files import open_to_append, write_text

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "wandb", "numpy", "lightning-recipes")
ORDER = ("loss", "acc")
CONFUSION, HISTOGRAMS, PICTURES = "confusion.json", "histograms.csv", "pictures"
ROOT = Path(__file__).resolve().parents[2]


def write_config(folder: Path, config: Mapping[str, Any], command: Sequence[str], changed: Sequence[str] = ()) -> None:
    """The resolved config, under the command that repeats the run; under those it went through where it was `changed` on the way."""
    head = f"# The resolved config of this run. To repeat it:\n#   {command_line(command)}\n"
    if changed:
        lines = "".join(f"#   {line}\n" for line in changed)
        head = f"# The resolved config of this run. It was changed on the way, so no single command repeats it:\n{lines}"
    write_text(folder / "config.yaml", head + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def command_line(command: Sequence[str]) -> str:
    """The command with these words, as it is typed."""
    return f"python train.py {' '.join(map(quote, command))}".rstrip()


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])


def is_first_rank() -> bool:
    """Whether this process writes and prints."""
    return ranks.rank() == 0


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """`result.json`, whole or not at all; JSON has no infinity: null stands for it, in the config `.inf` as it is typed."""
    typed = {"config": _finite(result["config"], in_words=True)} if "config" in result else {}
    write_text(folder / "result.json", json.dumps(_finite({**result, **typed}), indent=2, allow_nan=False) + "\n")


def _finite(value: Any, in_words: bool = False) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner, in_words) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner, in_words) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return show(value) if in_words else None
    return value


def read_result(folder: Path) -> dict[str, Any]:
    """`result.json` of a run folder, not a number for a metric that is null; empty if there is none."""
    try:
        result = shapes.read_result(folder)
    except FileNotFoundError:
        return {}
    if "metrics" in result:
        result["metrics"] = {name: math.nan if value is None else value for name, value in result["metrics"].items()}
    return result


def write_confusion(folder: Path, tasks: Iterable[Task], matrices: Mapping[str, list[list[int]]]) -> None:
    """`confusion.json`: the matrix of each classification on the test split; rows are true classes, columns predicted."""
    found = {
        task.name: {
            "classes": list(task.names) or [str(number) for number in range(task.outputs)],
            "matrix": matrices[task.name],
        }
        for task in tasks
        if task.name in matrices
    }
    if found:
        write_text(folder / CONFUSION, json.dumps({"test": found}) + "\n")


def environment() -> dict[str, Any]:
    """Versions, machine and source revision, so that a number can be traced."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "git_commit": git_commit(), "machine": machine()}


def git_commit() -> str | None:
    """The revision of the source, with a plus where files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def machine() -> str:
    """The accelerator's name, or the number of CPU threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use: on the accelerator, or by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Journal(logging.handlers.MemoryHandler):
    """Keeps messages for a file until they may be written."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(sys.maxsize, logging.CRITICAL + 1, target, flushOnClose=False)
        self.setLevel(target.level)

    def pass_on(self) -> None:
        """Write what was kept, and from now on each message at once."""
        self.capacity = 1
        self.flush()


@contextmanager
def log_to(folder: Path, wait: bool = False) -> Iterator[Journal]:
    """Send this project's messages, Lightning's and Python's warnings to `train.log`; our own warnings to the console too.

    Several ranks of a machine write to one file, each message at once and marked; those of other machines, which a shared file
    system would not keep apart, to their console. All tell their warnings and errors, the first one everything.

    Args:
        folder: the run's folder.
        wait: whether nothing is written before the journal is released.
    """
    file = logging.StreamHandler() if ranks.node() else LogFile(folder / "train.log", delay=True)
    file.setFormatter(RankFormatter("%(asctime)s %(levelname)s %(message)s"))
    file.setLevel(logging.INFO if is_first_rank() else logging.WARNING)
    journal = Journal(file)
    if not wait:
        journal.pass_on()
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("warning: %(message)s"))
    console.addFilter(lambda record: record.levelno == logging.WARNING and is_first_rank())
    ours = logging.getLogger("recipes")
    level, show = ours.level, warnings.showwarning
    ours.setLevel(logging.INFO)
    ours.addHandler(console)
    warnings.showwarning = log_warning
    loggers = [ours, logging.getLogger("lightning.pytorch"), logging.getLogger("py.warnings")]
    for logger in loggers:
        logger.addHandler(journal)
    try:
        yield journal
    finally:
        for logger in loggers:
            logger.removeHandler(journal)
        ours.removeHandler(console)
        ours.setLevel(level)
        warnings.showwarning = show
        journal.close()
        file.close()


class LogFile(logging.FileHandler):
    """Writes to the end of a file that is no link."""

    def _open(self) -> Any:
        return io.TextIOWrapper(open_to_append(Path(self.baseFilename)), "utf-8", "replace", write_through=True)


class RankFormatter(logging.Formatter):
    """Marks each line with the rank where there are several."""

    def format(self, record: logging.LogRecord) -> str:
        """The message as it is written."""
        text = printable(super().format(record), "\n\t")
        return ranks.mark(text, ranks.rank()) if ranks.world() > 1 else text


def log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
) -> None:
    """Python's warnings as messages: those of our own techniques are for the user."""
    ours = any(folder in Path(filename).parents for folder in (ROOT / "plugins", ROOT / "recipes"))
    logging.getLogger("recipes" if ours else "py.warnings").warning(
        "%s", message if ours else f"{filename}:{lineno}: {message}"
    )


def table(result: Mapping[str, Any]) -> Table:
    """The metrics of a run: one row a metric, one column a split."""
    metrics = result["metrics"]
    splits = [split for split in ("train", "val", "test") if any(name.startswith(split + "/") for name in metrics)]
    names = list(dict.fromkeys(name.partition("/")[2] for name in metrics if name.partition("/")[0] in splits))
    names.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    shown = Table(title=None, header_style="bold")
    shown.add_column("metric")
    for split in splits:
        shown.add_column(split, justify="right")
    for name in names:
        cells = [metrics.get(f"{split}/{name}") for split in splits]
        shown.add_row(Text(printable(name)), *("" if cell is None else f"{cell:.4f}" for cell in cells))
    return shown


def print_lines(console: Console, *lines: str) -> None:
    """Print without wrapping or markup, so that paths and commands can be copied."""
    for line in lines:
        console.print(as_typed(printable(line)), soft_wrap=True, markup=False, highlight=False)
