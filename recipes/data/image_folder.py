"""A user's own images: files in a folder for each class, which worker processes read while the model trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plugins.base import expect, expect_count
from recipes.data.base import Data
from recipes.data.class_folders import Kind
from recipes.data.images import Looked, decode, expect_form, look_at_one, one_size
from recipes.data.source import Sample, Source

IMAGES = Kind("images", (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
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
        self.class_names[""], found = IMAGES.splits(self.path)
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
        self._files = paths = IMAGES.everything(self.path)
        looked = look_at(paths)
        size, channels = self._form(list(zip(paths, looked, strict=True)))
        return ImageFiles(paths, torch.empty(len(paths), dtype=torch.long), size, channels, looked, self.workers)

    def ids(self) -> list[str]:
        """The files, as they lie below the folder."""
        return [str(file.relative_to(self.path)) for file in self._files]

    def _form(self, looked: Sequence[tuple[Path, Looked]]) -> tuple[tuple[int, int], int]:
        """Size and channels that all images get."""
        return self.size or one_size(looked), self.channels or (1 if all(look.grey for _, look in looked) else 3)


def look_at(paths: Sequence[Path]) -> list[Looked]:
    """Read each file once."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(look_at_one, paths))
