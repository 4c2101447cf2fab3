"""The files of a kind that lie below a folder, a folder for each class or not; what is none of them is counted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plugins.base import RecipeError
from recipes.data.rows import PARTS

OF_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what no user has put there; hidden files are none either
OF_SPLITS = (*PARTS, "testing")  # names of folders, in small letters, that are no classes where there are no others


@dataclass
class Found:
    """What lies below some folders."""

    files: list[Path] = field(default_factory=list)  # of the kind, by name
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


@dataclass(frozen=True)
class Kind:
    """Files of a kind.

    Args:
        word: what they are, in the plural.
        endings: of their names, by which they are known.
        otherwise: what can be typed where there are no folders of classes.
    """

    word: str
    endings: tuple[str, ...]
    otherwise: str = ""

    def expect_folder(self, path: Path, of_classes: bool) -> None:
        """Refuse what is no folder."""
        if not path.is_dir():
            there = f"{path} is a file" if path.exists() else f"no folder {path.absolute()}"
            within = f"a folder of {self.word} for each class" if of_classes else self.word
            raise RecipeError(f"{there}: data.path must be a folder {'with' if of_classes else 'of'} {within}")

    def everything(self, path: Path) -> Found:
        """All files of the kind below a folder, whatever folders they are in.

        Raises:
            RecipeError: there is no such folder, or no file.
        """
        self.expect_folder(path, of_classes=False)
        found = self._below(path)
        if not found.files:
            raise RecipeError(f"{path} has no {self.word} ({', '.join(self.endings)})")
        return found

    def splits(self, path: Path) -> tuple[tuple[str, ...], list[Found]]:
        """The names of the classes, and the files of training and, where there are some, of the test.

        Raises:
            RecipeError: no such folders, one class alone, a class without files, or one that training does not know.
        """
        self.expect_folder(path, of_classes=True)
        train, test = _parts(path)
        names = tuple(folder.name for folder in self._classes(train))
        if test and (unknown := [folder.name for folder in folders(test) if folder.name not in names]):
            raise RecipeError(f"{test} has the class {unknown[0]}, which {train} does not have: there are {', '.join(names)}")
        found = [self._labelled(folder, names) for folder in (train, test) if folder]
        if not found[-1].files:
            raise RecipeError(f"{test} has no folders: it must have one for each class, with its {self.word}")
        return names, found

    def _classes(self, path: Path) -> list[Path]:
        found = folders(path)
        if not found:
            otherwise = f", or {self.otherwise}" if self.otherwise else ""
            raise RecipeError(f"{path} has no folders: it must have one for each class, with its {self.word}{otherwise}")
        if len(found) == 1:
            within = f"; if these are in it, type data.path={found[0]}" if folders(found[0]) else ""
            raise RecipeError(
                f"{path} has one folder, {found[0].name}, and a class alone is nothing to tell apart: expected a folder for each class{within}"
            )
        return found

    def _below(self, path: Path) -> Found:
        found = Found()
        for file in below(path):
            (found.files if file.suffix.lower() in self.endings else found.others).append(file)
        found.files.sort()
        return found

    def _labelled(self, path: Path, names: Sequence[str]) -> Found:
        """All files of all classes, with the number of each class."""
        everything = Found(others=[Path(entry.path) for entry in listed(path) if not is_folder(entry)])
        for folder in folders(path):
            found = self._below(folder)
            if not found.files:
                there = f"; it holds {found.others[0].name}" if found.others else ""
                raise RecipeError(
                    f"{folder} has no {self.word} ({', '.join(self.endings)}){there}: take the folder away, or put some in"
                )
            everything.files += found.files
            everything.labels += [names.index(folder.name)] * len(found.files)
            everything.others += found.others
        return everything


def _parts(path: Path) -> tuple[Path, Path | None]:
    """Where the classes of training lie, and those of the test; without a folder test, val beside train is that."""
    there = {folder.name for folder in folders(path)}
    if "train" not in there:
        if len(there) > 1 and all(name.lower() in OF_SPLITS for name in there):
            raise RecipeError(
                f"{path} has {' and '.join(sorted(there))}, which are names of splits and of no classes: call them train and test, or train "
                f"and val, with a folder for each class in each"
            )
        return path, None
    of_test = [name for name in ("test", "val") if name in there]
    if len(of_test) == 2:
        raise RecipeError(
            f"{path} has train, val and test, and validation is a share of train (data.validation): move what is in val "
            f"to train, or away"
        )
    if further := there - {"train", *of_test}:
        raise RecipeError(f"{path} has train and {', '.join(sorted(further))}: beside train there may be test, or val")
    return path / "train", path / of_test[0] if of_test else None
