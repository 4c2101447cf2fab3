"""Files in a folder for each class, whose name it has: PATH/CLASS/FILE, or PATH/train/CLASS and PATH/test/CLASS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plugins.base import RecipeError

Labelled = list[tuple[Path, int]]  # files, each with the number of its class


@dataclass(frozen=True)
class Kind:
    """Files of a kind.

    Args:
        word: what they are, in the plural.
        endings: of their names, by which they are known.
    """

    word: str
    endings: tuple[str, ...]

    def splits(self, path: Path) -> tuple[tuple[str, ...], list[Labelled]]:
        """The names of the classes, and the files of training and, where there are some, of the test.

        Raises:
            RecipeError: no such folders, a folder without files, a class that training does not know.
        """
        if not path.is_dir():
            raise RecipeError(
                f"no folder {path.absolute()}: data.path must be a folder with a folder of {self.word} for each class"
            )
        train, test = parts(path)
        names = tuple(folder.name for folder in self._classes(train))
        if test and (unknown := [folder.name for folder in self._classes(test) if folder.name not in names]):
            raise RecipeError(f"{test} has the class {unknown[0]}, which {train} does not have: there are {', '.join(names)}")
        return names, [self._labelled(folder, names) for folder in (train, test) if folder]

    def everything(self, path: Path) -> list[Path]:
        """All files below a folder, whatever folders they are in.

        Raises:
            RecipeError: there is no such folder, or no file.
        """
        if not path.is_dir():
            raise RecipeError(f"no folder {path.absolute()}: data.path must be a folder of {self.word}")
        found = self._files(path)
        if not found:
            raise RecipeError(f"{path} has no {self.word} ({', '.join(self.endings)})")
        return found

    def _classes(self, path: Path) -> list[Path]:
        """The folders of the classes."""
        found = folders(path)
        if not found:
            raise RecipeError(f"{path} has no folders: it must have one for each class, with its {self.word}")
        return found

    def _files(self, path: Path) -> list[Path]:
        """All files below a folder, by name, but for hidden ones."""
        return sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in self.endings and not file.name.startswith(".") and file.is_file()
        )

    def _labelled(self, path: Path, names: Sequence[str]) -> Labelled:
        """All files of all classes with the class's number, by name."""
        found = []
        for folder in self._classes(path):
            files = self._files(folder)
            if not files:
                raise RecipeError(
                    f"{folder} has no {self.word} ({', '.join(self.endings)}): take the folder away, or put some in"
                )
            found += [(file, names.index(folder.name)) for file in files]
        return found


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name, but for hidden ones."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def parts(path: Path) -> tuple[Path, Path | None]:
    """Where the classes of training lie, and those of the test; without a folder test, val beside train is that."""
    there = {folder.name for folder in folders(path)}
    if "train" not in there:
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
