"""A user's own images: files in a folder for each class, which worker processes read while the model trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plugins.base import RecipeError, expect, expect_count
from recipes.data.base import Data
from recipes.data.images import Looked, decode, expect_form, look_at_one, one_size
from recipes.data.source import Sample, Source

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
READERS = 8  # threads that look at the files once; they wait for the disk


class ImageFiles(Source):
    """Images in files, (channels, height, width) bytes, decoded when they are fetched.

    Args:
        paths: of the files.
        labels: class numbers (samples,).
        size: height and width that each is resized to.
        channels: 1 or 3.
        looked: at the files.
        workers: processes that read ahead.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Tensor,
        size: tuple[int, int],
        channels: int,
        looked: Sequence[Looked],
        workers: int,
    ) -> None:
        self.paths, self._labels, self.size, self.channels = paths, {"": labels}, size, channels
        self.looked, self.workers = looked, workers
        self.remark = (
            f"{len(paths):,} files are read as they are needed, by {workers or 'no'} processes of their own: data.workers"
        )

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> Mapping[str, Tensor]:
        """The classes."""
        return self._labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image."""
        return (self.channels, *self.size)

    def fetch(self, index: Tensor) -> Sample:
        """Decoded images."""
        images = torch.empty((len(index), *self.shape), dtype=torch.uint8)
        for image, number in zip(images, index.tolist(), strict=True):
            image.copy_(decode(self.paths[number], self.size, self.channels))
        return images, {"": self._labels[""].index_select(0, index)}

    def contents(self) -> Iterator[Any]:
        """What the files hold, and what is made of it."""
        yield f"{len(self)} images {self.shape}".encode()
        yield from (looked.digest for looked in self.looked)

    def __getitem__(self, index: Any) -> ImageFiles:
        numbers = torch.arange(len(self))[index]
        chosen = numbers.tolist()
        paths, looked = [self.paths[number] for number in chosen], [self.looked[number] for number in chosen]
        return ImageFiles(paths, self._labels[""][numbers], self.size, self.channels, looked, self.workers)

    def __add__(self, other: Any) -> ImageFiles:
        if not isinstance(other, ImageFiles):
            return NotImplemented
        labels = torch.cat([self._labels[""], other.labels[""]])
        looked = [*self.looked, *other.looked]
        return ImageFiles([*self.paths, *other.paths], labels, self.size, self.channels, looked, self.workers)


class ImageFolder(Data):
    """Images in files, a folder for each class, whose name it has: PATH/CLASS/*.png, or PATH/train/CLASS and PATH/test/CLASS.

    Without a folder test, val beside train is the test split; files of other endings and hidden ones are left out. An image is
    decoded each time it is needed, so the files may take more than the memory. Which files they are, and that each is an image, is
    looked at when a run starts.

    Args:
        path: the folder.
        size: pixels that each image is resized to (bilinear), one number or (height, width); None: all have one size.
        channels: 1 (grey) or 3 (colours); None: 1 if all are grey.
        workers: processes that read ahead, ≥ 0.

    Raises:
        RecipeError: no such folders, files that are no images, several sizes without `size`, a class that training does not know.
    """

    def __init__(
        self,
        path: str | None = None,
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        workers: int = 2,
        **split: Any,
    ) -> None:
        super().__init__(**split)
        expect(
            path is not None, "data.path", "a folder with a folder for each class (data=image_folder data.path=FOLDER)", path
        )
        self.size = expect_form(size, channels)
        expect_count("data.workers", workers, least=0)
        self.path, self.channels, self.workers = Path(str(path)), channels, workers
        self._files: list[Path] = []

    def load(self) -> tuple[Source, Source | None]:
        """The files, looked at."""
        if not self.path.is_dir():
            raise RecipeError(
                f"no folder {self.path.absolute()}: data.path must be a folder with a folder of images for each class"
            )
        train, test = self._folders()
        names = [folder.name for folder in class_folders(train)]
        self.class_names[""] = tuple(names)
        if test and (unknown := [folder.name for folder in class_folders(test) if folder.name not in names]):
            raise RecipeError(f"{test} has the class {unknown[0]}, which {train} does not have: there are {', '.join(names)}")
        found = [labelled_files(folder, names) for folder in (train, test) if folder]
        self._files = [path for path, _ in found[-1]]
        looked = [look_at([path for path, _ in files]) for files in found]
        everything = [
            (path, look)
            for files, looks in zip(found, looked, strict=True)
            for (path, _), look in zip(files, looks, strict=True)
        ]
        size, channels = self._form(everything)
        splits = [
            ImageFiles(
                [path for path, _ in files], torch.tensor([label for _, label in files]), size, channels, looks, self.workers
            )
            for files, looks in zip(found, looked, strict=True)
        ]
        return splits[0], splits[1] if len(splits) > 1 else None

    def load_inputs(self) -> Source:
        """All images below the folder, whatever folders they are in."""
        if not self.path.is_dir():
            raise RecipeError(f"no folder {self.path.absolute()}: data.path must be a folder of images")
        paths = image_files(self.path)
        if not paths:
            raise RecipeError(f"{self.path} has no images ({', '.join(ENDINGS)})")
        looked = look_at(paths)
        self._files = paths
        size, channels = self._form(list(zip(paths, looked, strict=True)))
        return ImageFiles(paths, torch.empty(len(paths), dtype=torch.long), size, channels, looked, self.workers)

    def ids(self) -> list[str]:
        """The files, as they lie below the folder."""
        return [str(file.relative_to(self.path)) for file in self._files]

    def _form(self, looked: Sequence[tuple[Path, Looked]]) -> tuple[tuple[int, int], int]:
        """Size and channels that all images get."""
        return self.size or one_size(looked), self.channels or (1 if all(look.grey for _, look in looked) else 3)

    def _folders(self) -> tuple[Path, Path | None]:
        """Where the classes of training lie, and those of the test."""
        there = {folder.name for folder in folders(self.path)}
        if "train" not in there:
            return self.path, None
        of_test = [name for name in ("test", "val") if name in there]
        if len(of_test) == 2:
            raise RecipeError(
                f"{self.path} has train, val and test, and validation is a share of train (data.validation): move what is in val "
                f"to train, or away"
            )
        if further := there - {"train", *of_test}:
            raise RecipeError(f"{self.path} has train and {', '.join(sorted(further))}: beside train there may be test, or val")
        return self.path / "train", self.path / of_test[0] if of_test else None


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name, but for hidden ones."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def class_folders(path: Path) -> list[Path]:
    """The folders of the classes."""
    found = folders(path)
    if not found:
        raise RecipeError(f"{path} has no folders: it must have one for each class, with its images")
    return found


def image_files(path: Path) -> list[Path]:
    """All images below a folder, by name, but for hidden ones."""
    return sorted(
        file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and not file.name.startswith(".") and file.is_file()
    )


def labelled_files(path: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    """All images of all classes with the class's number, by name."""
    found = []
    for folder in class_folders(path):
        files = image_files(folder)
        if not files:
            raise RecipeError(f"{folder} has no images ({', '.join(ENDINGS)}): take the folder away, or put some in")
        found += [(file, names.index(folder.name)) for file in files]
    return found


def look_at(paths: Sequence[Path]) -> list[Looked]:
    """Read each file once."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(look_at_one, paths))
