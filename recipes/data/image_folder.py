"""A user's own images: files in a folder for each class, or that a table names, in memory or read while the model trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plugins.base import RecipeError, expect, expect_choice, expect_count
from recipes.data.base import Data
from recipes.data.folders import Found, Kind
from recipes.data.image_files import File, Held, ImageFiles, in_words, look_at, read, refuse
from recipes.data.image_labels import read_labels
from recipes.data.images import ENDINGS, Form, Looked, Unreadable, expect_form, one_size
from recipes.data.memory import stays
from recipes.data.source import Source
from recipes.data.table import separator_of
from recipes.data.table_roles import names_of
from recipes.data.table_targets import CLASSIFICATION, REGRESSION
from recipes.data.targets import MULTILABEL
from recipes.launch.ranks import world

IMAGES = Kind("images", ENDINGS, "data.labels=FILE.csv names the label of each")
LISTED = 10  # broken files that the first lines of a run name


class Part(NamedTuple):
    """The files of a split, and their targets."""

    files: list[File]
    targets: dict[str, Tensor]


class ImageFolder(Data):
    """Images in files, a folder for each class, whose name it has: PATH/CLASS/*.png, or PATH/train/CLASS and PATH/test/CLASS.

    Without a folder test, val beside train is the test split; files of other endings are left out and counted, hidden ones are not looked
    at. In place of folders of classes a csv file may name the images and their labels, or numbers for a regression. When a run starts each
    file is decoded once: where the images fit into the memory they stay there, else they are decoded again each time that they are needed,
    and the model becomes the same, bit for bit.

    An image is turned as its camera was held (EXIF), in front of white where it is transparent; 16 bits are scaled to 8, CMYK and palettes
    become colours, and of several frames the first is taken.

    Args:
        path: the folder.
        labels: a csv file in UTF-8 with a row an image, whose first line names the columns; None: the folders are the classes.
        file: of its columns the one that names the file, below `path`.
        target: of its columns the one to predict, or a list of names: one task each, or of `multilabel` one label each.
        task: of these `classification`, `regression` or `multilabel`; None: as `data=csv` decides it.
        separator: what stands between two of its cells: `comma`, `semicolon`, `tab`, or any other letter.
        size: pixels that each image is resized to (bilinear), one number or (height, width); None: all have one size.
        aspect: what becomes of an image of another aspect: `stretch`; `crop`: its middle; `pad`: all of it between black edges.
        channels: 1 (grey) or 3 (colours); None: 1 if all are grey.
        broken: what becomes of a file that is no image: `error`, or `skip`: it is left out, which the first lines of a run tell.
        in_memory: whether the images are held in memory; None: where three times their size is free.
        workers: processes that decode, ≥ 0.

    Raises:
        RecipeError: no such folders or files, files that are no images, several sizes without `size`, a class that training does not know,
            labels that cannot be right.
    """

    def __init__(
        self,
        path: str | None = None,
        labels: str | None = None,
        file: str = "file",
        target: str | Sequence[str] = "label",
        task: str | None = None,
        separator: str = "comma",
        size: int | Sequence[int] | None = None,
        aspect: str = "stretch",
        channels: int | None = None,
        broken: str = "error",
        in_memory: bool | None = None,
        workers: int = 2,
        **split: Any,
    ) -> None:
        super().__init__(**split)
        expect(
            path is not None, "data.path", "a folder with a folder for each class (data=image_folder data.path=FOLDER)", path
        )
        self.size, self.aspect = expect_form(size, channels, aspect), aspect
        expect_choice("data.broken", broken, ("error", "skip"))
        expect(in_memory is None or isinstance(in_memory, bool), "data.in_memory", "true, false or null", in_memory)
        expect_count("data.workers", workers, least=0)
        if task is not None:
            expect_choice("data.task", task, (CLASSIFICATION, MULTILABEL, REGRESSION))
        self.path, self.channels, self.workers = Path(str(path)), channels, workers
        self.labels, self.file, self.target, self.task = labels, str(file), names_of("data.target", target), task
        least = 2 if task == MULTILABEL else 1
        several = "the names of the columns of at least two labels, [NAMES]" if least > 1 else "the name of at least one column"
        expect(len(self.target) >= least, "data.target", several, target)
        if labels is None:
            expect(task is None, "data.task", "left out without data.labels=FILE.csv, as folders are classes", task)
        self.separator = separator_of(separator)
        self.broken, self.in_memory = broken, in_memory
        self._files: list[File] = []
        self._remark = ""  # what is to be told beside where the images are

    def load(self) -> tuple[Source, Source | None]:
        """The images, each decoded once."""
        IMAGES.expect_folder(self.path, of_classes=True)
        splits = self._sources(self._of_folders() if self.labels is None else [self._of_table(Path(self.labels))])
        for task, names in self.class_names.items():
            labels = splits[0].labels[task]
            if self.task != MULTILABEL and (lost := [name for number, name in enumerate(names) if number not in labels]):
                raise RecipeError(f"{self.path}: none of the images of the class {lost[0]} can be read")
        return splits[0], splits[1] if len(splits) > 1 else None

    def load_inputs(self) -> Source:
        """All images below the folder, whatever folders they are in."""
        found = IMAGES.everything(self.path)
        self._remark = found.remark
        return self._sources([Part(self._below(found), {"": torch.empty(len(found.files), dtype=torch.long)})])[0]

    def ids(self) -> list[str]:
        """The files, as they lie below the folder."""
        return [file.name for file in self._files]

    def _below(self, found: Found) -> list[File]:
        return [File(path, str(path.relative_to(self.path))) for path in found.files]

    def _of_folders(self) -> list[Part]:
        """The images of the folders of classes, of training and, where there are some, of the test."""
        self.class_names[""], found = IMAGES.splits(self.path)
        self._remark = Found(others=[other for each in found for other in each.others]).remark
        return [Part(self._below(each), {"": torch.tensor(each.labels)}) for each in found]

    def _of_table(self, labels: Path) -> Part:
        """The images that a table names."""
        named = read_labels(labels, self.separator, self.file, self.target, self.task)
        self.class_names, self._remark = dict(named.class_names), f"; {named.remark}"
        files = [
            File(self.path / name, name, f" (line {line} of {labels})")
            for name, line in zip(named.names, named.lines, strict=True)
        ]
        return Part(files, named.targets)

    def _sources(self, parts: Sequence[Part]) -> list[Source]:
        """The images of each split, without broken ones, in memory or not."""
        everything = [file for part in parts for file in part.files]
        looks = look_at(everything)
        broken = {number: look for number, look in enumerate(looks) if isinstance(look, Unreadable)}
        good = [(number, look) for number, look in enumerate(looks) if isinstance(look, Looked)]
        if self.broken == "error" or not good:
            refuse([*broken.values()])
        form = self._form([(everything[number].where, look) for number, look in good])
        size = len(good) * form.shape[0] * form.size[0] * form.size[1]
        placed = stays(self.in_memory, size, self.batch_size, self.path, world())
        images, further = read([everything[number] for number, _ in good], form, self.workers, keep=not placed)
        if self.broken == "error" or len(further) == len(good):
            refuse([*further.values()])
        kept = [place for place in range(len(good)) if place not in further]
        images = images if images is None or not further else images[kept]
        broken |= {good[place][0]: error for place, error in further.items()}
        remark = self._told(len(kept), form, placed, [broken[number] for number in sorted(broken)], [look for _, look in good])
        digests = {good[place][0]: good[place][1].digest for place in kept}
        sources: list[Source] = []
        first = taken = 0
        for part in parts:
            rows = [row for row in range(len(part.files)) if first + row in digests]
            self._files = [part.files[row] for row in rows]
            hashes = [digests[first + row] for row in rows]
            targets = {task: target[rows] for task, target in part.targets.items()}
            if images is None:
                sources.append(ImageFiles(self._files, targets, form, hashes, self.workers, remark))
            else:
                sources.append(Held(images[taken : taken + len(rows)], targets, form, hashes, remark))
            first, taken = first + len(part.files), taken + len(rows)
        return sources

    def _form(self, looked: Sequence[tuple[str, Looked]]) -> Form:
        """What is made of each image."""
        return Form(
            self.size or one_size(looked), self.channels or (1 if all(look.grey for _, look in looked) else 3), self.aspect
        )

    def _told(self, images: int, form: Form, placed: bool, broken: Sequence[Unreadable], looked: Sequence[Looked]) -> str:
        """Where the images are and what was left out, in words."""
        size = f"{images * form.shape[0] * form.size[0] * form.size[1] / 2**20:,.1f} MiB"
        told = (
            f"{len(broken)} broken file{'s' if len(broken) > 1 else ''} left out: {in_words(broken, LISTED)}; "
            if broken
            else ""
        )
        if placed:
            told += (
                f"{images:,} files are read as they are needed, by {self.workers or 'no'} processes of their own: data.workers; in memory "
                f"they take {size}: data.in_memory=true"
            )
        else:
            told += f"{images:,} images {form.shape} are in memory, {size}"
        if several := sum(look.frames for look in looked):
            told += f"; of {several} file{'s' if several > 1 else ''} with several frames the first is taken"
        return told + self._remark
