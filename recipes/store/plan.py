"""The plan of a sweep, `jobs.yaml` in its folder: its words, and those of each job. Nothing here imports torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from plugins.errors import RecipeError
from recipes.config.kinds import is_texts
from recipes.config.places import check_inside
from recipes.config.quoting import path_word, typed
from recipes.config.run_files import JOBS, MULTIRUN, STUDY, SWEEP_LOG
from recipes.config.settings import expect_below
from recipes.config.untrusted import LARGEST_RECORD, read_yaml
from recipes.store.files import remove_empty, write_text
from recipes.store.shapes import FORMAT, expect_known

HEAD = """\
# A sweep. To go on with it, or to see what came of it:
#   python train.py -m {sweep}
#   python compare.py {folder}
# A job that is taken out below is not run again.
"""
# before its first job
OF_A_SWEEP = re.compile(rf"({re.escape(JOBS)}|{re.escape(MULTIRUN)})(\.part-\d+)?|{re.escape(SWEEP_LOG)}")
JOURNAL = re.compile(rf"{re.escape(STUDY)}(\.lock[\w.-]*)?")  # of a search, which has made the sweep's log before


@dataclass
class Plan:
    """What `jobs.yaml` holds: the words of the sweep, Hydra's own among them apart, and the words of each job folder."""

    words: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)
    config_dir: str | None = None
    jobs: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan in a sweep's folder."""
        path = folder / JOBS
        try:
            content = read_yaml(path, LARGEST_RECORD)
        except OSError as error:
            raise RecipeError(f"{path} cannot be read: {error.strerror}") from None
        expect_known(path, content.get("format"))
        jobs, config_dir = content.get("jobs"), content.get("config_dir")
        lists = [content.get("words"), content.get("hydra"), *(jobs.values() if isinstance(jobs, Mapping) else [None])]
        if not all(map(is_texts, lists)):
            raise RecipeError(f"{path} is not what a sweep writes: expected lists of words")
        if not isinstance(config_dir, str | None):
            raise RecipeError(f"{path} is not what a sweep writes: config_dir must be a folder")
        plan = cls(content["words"], content["hydra"], config_dir, {str(name): words for name, words in jobs.items()})  # type: ignore[union-attr]
        for name in plan.jobs:
            expect_inside(folder, name)
        return plan

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        text = yaml.safe_dump({"format": FORMAT, **vars(self)}, sort_keys=False, allow_unicode=True, width=10**6)
        write_text(folder / JOBS, HEAD.format(sweep=typed("sweep", folder), folder=path_word(folder)) + text)

    def folder_for(self, words: Sequence[str], wanted: str) -> tuple[str, bool]:
        """The folder of the job with these words, in any order, and whether the job is new.

        It is the one that the job has, or `wanted`, or the next free number.
        """
        for name, others in self.jobs.items():
            if sorted(others) == sorted(words):
                return name, False
        number = 0
        while wanted in self.jobs:
            wanted = str(number)
            number += 1
        self.jobs[wanted] = list(words)
        return wanted, True


def expect_sweep_or_empty(folder: Path) -> None:
    """Refuse to sweep in a folder that holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"the output folder cannot be written: {folder} is a file; choose another one: sweep=FOLDER")
    if not (folder / JOBS).exists() and not all(map(_is_ours, folder.glob("*"))):
        raise RecipeError(f"{folder} is there, and is no sweep: looked for {JOBS}; choose another folder: sweep=FOLDER")


def is_journal(path: Path) -> bool:
    """Whether a search has left this: Optuna's journal, and its lock, which is a link."""
    return bool(JOURNAL.fullmatch(path.name)) and (path.is_symlink() or path.is_file()) and (path.parent / SWEEP_LOG).exists()


def _is_ours(path: Path) -> bool:
    return is_journal(path) or bool(OF_A_SWEEP.fullmatch(path.name) and path.is_file())


def remove_sweep(folder: Path) -> None:
    """Leave nothing of a sweep that has no job: what Hydra and we have written for it."""
    if not (folder / JOBS).exists() or not Plan.read(folder).jobs:
        for path in list(filter(_is_ours, folder.glob("*"))):
            path.unlink(missing_ok=True)
        remove_empty(folder)


def expect_inside(folder: Path, name: str) -> None:
    """Refuse the folder of a job that is not below the sweep's."""
    expect_below(folder, name)
    check_inside(folder, os.path.normpath(name))


def sweep_of(folder: Path) -> tuple[Path, Plan] | None:
    """The sweep that a run's folder belongs to."""
    folder = folder.absolute()
    for above in folder.parents[:4]:
        with suppress(RecipeError):  # a file of another program
            if (above / JOBS).is_file() and str(folder.relative_to(above)) in (plan := Plan.read(above)).jobs:
                return above, plan
    return None


def is_job(folder: Path, words: Sequence[str]) -> bool:
    """Whether a folder is that of a sweep's job with these words."""
    found = sweep_of(folder)
    return found is not None and sorted(found[1].jobs[str(folder.absolute().relative_to(found[0]))]) == sorted(words)
