"""Whose a folder is: which ones a new run takes, and which files in one a run has written. Nothing here imports torch."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.places import check_files, open_file
from recipes.config.quoting import typed
from recipes.config.run_files import BEST, CONFIG, LAST, LOG, OUTPUT, PREVIOUS, SLURM_JOB
from recipes.config.untrusted import read_text
from recipes.store.folder import result_or_empty

STATUSES = ("running", "stopped", "failed", "finished", "diverged", "pruned")
HEAD = "# The resolved config of this run."  # of config.yaml
# what whoever starts a run may put there first: a sweep, Slurm, ranks that fail, Hydra
BESIDE = (OUTPUT, SLURM_JOB, "errors", ".hydra")
SHOWN = 3  # names of files in an error
FOLDERS = ("", "checkpoints", "pictures", "wandb", "tensorboard", "errors")
WRITTEN = re.compile(
    r"(config\.yaml|result\.json|metrics\.csv|histograms\.csv|confusion\.json|test\.json|run\.png|train\.log|output\.log|slurm-job\.txt"
    r"|checkpoints/(best|last|previous)\.ckpt|pictures/(?P<option>\w+)\.png|wandb/run-id\.txt|errors/\d+\.json"
    r"|tensorboard/(events\.out\.tfevents\.[\w.-]+|hparams\.yaml))(?P<part>\.part-\d+)?"
)
OF_A_RANK = re.compile(rb"rank \d+: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")  # how train.log begins where one has failed early
LINKS = ("latest-run", "debug.log", "debug-internal.log")  # that wandb makes in its folder


class Claim(Enum):
    """What a new run does with its folder."""

    NEW = "train in it"
    GO_ON = "go on with the run that is in it"
    REPLACE = "replace the run that is in it"


def claim(
    folder: Path, words: Sequence[str], overwrite: bool = False, again: bool = False, known: bool = False, job: str = ""
) -> Claim:
    """Whether a new run may have a folder, and how.

    It gets one that is empty or is not there, and one with an unfinished run of the same words, with which it goes on: since
    all draws have owners, that ends as if it had been started anew.

    Args:
        folder: the folder that was asked for.
        words: what the run is started with, Hydra's own aside.
        overwrite: whether another run in it may be replaced.
        again: whether a cluster has started the same command once more; a run that has finished meanwhile is no mistake then.
        known: whether the folder is that of a sweep's job with these words.
        job: the number of this process' job on a cluster, which keeps it when it is started again: what it has left is not overwritten.

    Raises:
        RecipeError: the folder holds something else; the message says what, and what to type.
    """
    check_files(folder)
    there = sorted(path.name for path in folder.iterdir() if path.name not in BESIDE) if folder.is_dir() else []
    if all(_is_begun(folder / name) for name in there):
        return Claim.NEW
    status, command = _run_in(folder)
    if not status:
        return Claim.NEW if known else _beside(folder, there, overwrite)
    same = command == _without_overwrite(words)
    ours = again and same and status != "diverged" and bool(job) and result_or_empty(folder).get("slurm_job") == job
    if overwrite and not ours:
        return Claim.REPLACE
    if status == "diverged":
        raise RecipeError(
            f"{folder} holds a run that has diverged, and would diverge again: to train another one in its place add overwrite=true; "
            f"else choose another folder, hydra.run.dir=FOLDER"
        )
    if same and (again or status != "finished"):
        return Claim.GO_ON
    longer = f"to train it for longer type {typed('resume', folder)} max_epochs=NUMBER"
    go_on = f"to go on with it type {typed('resume', folder)}"
    raise RecipeError(
        f"{folder} holds {'a finished run' if status == 'finished' else 'an unfinished run of other words'}: "
        f"{longer if status == 'finished' else go_on}; to replace it add overwrite=true; "
        f"else choose another folder, hydra.run.dir=FOLDER"
    )


def expect_unclaimed(folder: Path) -> None:
    """Refuse a folder that was new when it was claimed, and holds a run that another process has left since then."""
    if _run_in(folder)[0]:
        raise RecipeError(
            f"{folder} holds a run that another process has left there since this command began: to replace it add overwrite=true; "
            f"else choose another folder, hydra.run.dir=FOLDER"
        )


def _beside(folder: Path, there: Sequence[str], overwrite: bool) -> Claim:
    """A folder with files of somebody else: a run may train beside them if it is asked to, but never in their place."""
    shown = ", ".join([*there[:SHOWN], *(["…"] if len(there) > SHOWN else [])])
    ours = [name for name in there if name in FOLDERS or WRITTEN.fullmatch(name)]
    if not ours and overwrite:
        return Claim.NEW
    if ours:
        raise RecipeError(
            f"{folder} holds {', '.join(ours[:SHOWN])}, and no run that has written this: choose another folder, "
            f"hydra.run.dir=FOLDER"
        )
    raise RecipeError(
        f"{folder} is not empty, it holds {shown}: choose another folder, hydra.run.dir=FOLDER; to train beside these files "
        f"add overwrite=true"
    )


def _is_begun(path: Path) -> bool:
    """Whether this is all that a process leaves which is killed before it has written a result."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.name != LOG:
        return bool(re.fullmatch(r"result\.json\.part-\d+", path.name))
    with open(open_file(path), "rb") as file:
        text = file.read(99)
    return not text or bool(OF_A_RANK.match(text))


def _run_in(folder: Path) -> tuple[str, list[str]]:
    """Status and words of the run in a folder; both empty where its files are not those of a run."""
    result = result_or_empty(folder)
    command = result.get("command")
    if result.get("status") not in STATUSES or not isinstance(command, list) or not isinstance(result.get("config"), dict):
        return "", []
    with suppress(FileNotFoundError, RecipeError):
        if not read_text(folder / CONFIG).startswith(HEAD):
            return "", []
    return str(result["status"]), _without_overwrite(map(str, command))


def _without_overwrite(words: Iterable[str]) -> list[str]:
    return sorted(word for word in words if not word.startswith("overwrite="))


# What a run has written


def written(folder: Path) -> Iterator[Path]:
    """The files below a folder whose names are exactly those that a run writes; links are not followed."""
    for name in FOLDERS:
        place = folder / name
        if not place.is_dir() or (name and place.is_symlink()):
            continue
        for path in sorted(place.iterdir()):
            if WRITTEN.fullmatch(f"{name}/{path.name}" if name else path.name) and not path.is_dir():
                yield path


@contextmanager
def set_aside(folder: Path) -> Iterator[None]:
    """Take away what a run could go on with: as parts, which :func:`remove_parts` removes; back in place if the block raises."""
    moved: list[tuple[Path, Path]] = []
    try:
        for path in written(folder):
            if path.name in (CONFIG, LAST, BEST, PREVIOUS):
                moved.append((path, path.with_name(f"{path.name}.part-{os.getpid()}")))
                os.replace(*moved[-1])
        yield
    except BaseException:
        for path, part in moved:
            with suppress(FileNotFoundError):  # it was not moved yet
                os.replace(part, path)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what killed processes had begun to write of the files of a run."""
    for path in written(folder):
        if re.search(r"\.part-\d+$", path.name):
            path.unlink(missing_ok=True)


def remove_run(folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove what a run has written, but for the files to `keep`; also the folder, if that was all.

    Files of others stay, also where they lie in `checkpoints/` and the like.
    """
    for path in _of_wandb(folder):
        if path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
    options: set[str] = set()
    for path in written(folder):
        found = WRITTEN.fullmatch(f"pictures/{path.name}") if path.parent != folder else None
        if found and path.parent.name == "pictures":
            options = options or {name for group in Catalogue(installed_folders()).groups.values() for name in group}
            if found["option"] not in options:
                continue
        if path.parent != folder or path.name not in keep:
            path.unlink(missing_ok=True)
    for name in reversed(FOLDERS):
        with suppress(OSError):  # there is something else in it, or it is not there
            (folder / name).rmdir()


def _of_wandb(folder: Path) -> Iterator[Path]:
    """What wandb has written for this run, which has its own name for each start."""
    place = folder / "wandb"
    try:
        identity = read_text(place / "run-id.txt").strip()
    except (OSError, RecipeError):
        return
    if place.is_symlink() or not re.fullmatch(r"[a-z0-9]+", identity):
        return
    for path in place.iterdir():
        of_run = re.fullmatch(rf"(offline-)?run-\d{{8}}_\d{{6}}-{identity}", path.name)
        if (of_run and path.is_dir() and not path.is_symlink()) or (path.name in LINKS and os.path.islink(path)):
            yield path
