"""A user's own recordings: files of sound in a folder for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from plugins.base import expect
from recipes.data.folders import Found, Kind
from recipes.data.recordings import ENDINGS, Head, expect_installed, head, read
from recipes.data.sequences import Sequences, sequences
from recipes.data.sound import READERS, SoundData, told
from recipes.data.source import Source

RECORDINGS = Kind("recordings", ENDINGS)


class AudioFolder(SoundData):
    """Recordings in files, a folder for each class, whose name it has: PATH/CLASS/*.wav, or PATH/train/CLASS and PATH/test/CLASS.

    Without a folder test, val beside train is the test split; files of other endings and hidden ones are left out. A recording of several
    channels is their mean; one of another rate is resampled. All are read when a run starts, and their frames are kept in memory.

    Args:
        path: the folder.
        rate: samples a second, ≥ 1; None: the lowest of all files.
        mels: bands of a frame, ≥ 1.
        window: seconds of sound in a frame, > 0.
        hop: seconds from one frame to the next, > 0.
        seconds: what a recording may last at most, > 0; None: any time.

    Raises:
        RecipeError: no such folders, files that are no sound, are empty, break off or last longer, a class that training does not know.
    """

    def __init__(
        self,
        path: str | None = None,
        rate: int | None = None,
        mels: int = 40,
        window: float = 0.025,
        hop: float = 0.01,
        seconds: float | None = None,
        **split: Any,
    ) -> None:
        super().__init__(rate, mels, window, hop, seconds, **split)
        expect(
            path is not None, "data.path", "a folder with a folder for each class (data=audio_folder data.path=FOLDER)", path
        )
        self.path = Path(str(path))
        self._files: list[Path] = []

    def load(self) -> tuple[Source, Source | None]:
        """The recordings of training, and of the test."""
        self.class_names[""], found = RECORDINGS.splits(self.path)
        both = Found(*([each for part in found for each in getattr(part, name)] for name in ("files", "labels", "others")))
        everything = self._sequences(both)
        self._files, train = found[-1].files, len(found[0].files)
        return (everything, None) if len(found) == 1 else (everything[:train], everything[train:])

    def load_inputs(self) -> Source:
        """All recordings below the folder, whatever folders they are in."""
        found = RECORDINGS.everything(self.path)
        self._files, found.labels = found.files, [0] * len(found.files)
        return self._sequences(found)

    def ids(self) -> list[str]:
        """The files, as they lie below the folder."""
        return [str(file.relative_to(self.path)) for file in self._files]

    def _sequences(self, found: Found) -> Sequences:
        """Files as samples."""
        expect_installed()
        files = found.files
        heads = [head(path) for path in files]
        form = self.form_at(min(each.rate for each in heads))
        lengths = [each.seconds for each in heads]
        self.expect_short(files, lengths, form)
        with ThreadPoolExecutor(READERS) as pool:
            frames = list(pool.map(lambda path, told: form.of(read(path, told, form.rate)), files, heads))
        return sequences(
            frames, {"": torch.tensor(found.labels)}, None, told(lengths, form) + changed(heads, form.rate) + found.remark
        )


def changed(heads: Sequence[Head], rate: int) -> str:
    """What was done with recordings of other rates or channels, for the first lines of a run."""
    rates = Counter(each.rate for each in heads if each.rate != rate)
    several = sum(each.channels > 1 for each in heads)
    resampled = [f"{count:,} of {other:,} samples a second are resampled" for other, count in sorted(rates.items())]
    return "".join(
        f"; {words}" for words in [*resampled, *([f"{several:,} are the mean of their channels"] if several else [])]
    )
