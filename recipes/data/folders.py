"""The images that lie below a folder, a folder for each class or not; what is none of them is counted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plugins.base import RecipeError
from recipes.data.images import ENDINGS

OF_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what no user has put there; hidden files are none either


@dataclass
class Found:
    """What lies below some folders."""

    files: list[Path] = field(default_factory=list)  # images, by name
    labels: list[int] = field(default_factory=list)  # numbers of their classes
    others: list[Path] = field(default_factory=list)  # of other endings, or beside the folders of classes

    @property
    def remark(self) -> str:
        """What is left out, in words."""
        if not self.others:
            return ""
        are = "files are" if len(self.others) > 1 else "file is"
        return f"; {len(self.others)} other {are} left out, such as {self.others[0].name}"


def is_shown(name: str) -> bool:
    """Whether a file or a folder is neither hidden nor one that a system has put there."""
    return not name.startswith(".") and name not in OF_SYSTEMS


def listed(path: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, but for what is hidden.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if is_shown(entry.name)), key=lambda entry: Path(entry.path))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name."""
    return [Path(entry.path) for entry in listed(path) if is_folder(entry)]


def class_folders(path: Path) -> list[Path]:
    """The folders of the classes.

    Raises:
        RecipeError: there is none, or one alone.
    """
    found = folders(path)
    if not found:
        raise RecipeError(
            f"{path} has no folders: it must have one for each class, with its images, or data.labels=FILE.csv names the label of each"
        )
    if len(found) == 1:
        within = f"; if these are in it, type data.path={found[0]}" if folders(found[0]) else ""
        raise RecipeError(
            f"{path} has one folder, {found[0].name}, and a class alone is nothing to tell apart: expected a folder for each class{within}"
        )
    return found


def below(path: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files below a folder, by name, links followed; a folder that links to one above it is not gone into again."""
    here = os.path.realpath(path)
    if here in above:
        return
    for entry in listed(path):
        if is_folder(entry):
            yield from below(Path(entry.path), above | {here})
        else:
            yield Path(entry.path)


def images_below(path: Path) -> Found:
    """All images below a folder."""
    found = Found()
    for file in below(path):
        (found.files if file.suffix.lower() in ENDINGS else found.others).append(file)
    found.files.sort()
    return found


def labelled(path: Path, names: Sequence[str]) -> Found:
    """All images of all classes, with the number of each class.

    Args:
        path: the folder.
        names: of the classes.

    Raises:
        RecipeError: a class without an image, or one that is not among the names.
    """
    everything = Found(others=[Path(entry.path) for entry in listed(path) if not is_folder(entry)])
    for folder in folders(path):
        found = images_below(folder)
        if not found.files:
            there = f"; it holds {found.others[0].name}" if found.others else ""
            raise RecipeError(f"{folder} has no images ({', '.join(ENDINGS)}){there}: take the folder away, or put some in")
        everything.files += found.files
        everything.labels += [names.index(folder.name)] * len(found.files)
        everything.others += found.others
    return everything
