"""Spoken digits of several speakers: the Free Spoken Digit Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError, expect, expect_choice
from recipes.data.arrays import as_labels, same_length
from recipes.data.npz import read_arrays
from recipes.data.recordings import expect_installed, head, read
from recipes.data.sequences import Sequences, sequences
from recipes.data.sound import SoundData, told

DIGIT, SPEAKER = "digit", "speaker"
FILES = ("speech_digits.npz", "fsdd.npz")
ARRAYS = ("signal", "offset", "digit", "speaker", "speakers", "index")
RATE = 8000  # samples a second
OF_TEST = 5  # the first takes of each digit by each speaker, which are the test split
CLONE, ADDRESS = "free-spoken-digit-dataset", "https://github.com/Jakobovski/free-spoken-digit-dataset"
LOUDEST = 2**15  # of samples that are whole numbers of 16 bits


class SpeechDigits(SoundData):
    """The digits from 0 to 9 in English, each spoken 50 times by each of six people, 3,000 recordings of 0.1 to 2.3 seconds.

    `ROOT/speech_digits.npz` or `ROOT/fsdd.npz` is used where it lies: `signal` (16 bits, all takes one behind the other), `offset` (where each
    begins, and the last ends), `digit`, `speaker`, `index` (which take it is) and `speakers` (their names); else the recordings of a clone of
    the data set's repository, ROOT/free-spoken-digit-dataset, which need the extra `audio`. The first five takes of each digit by each speaker
    are the test split, as the data set says; with `groups=speaker` it is all takes of some speakers.

    Source: Jackson, Souza, Flaks, Pan, Nicolas & Thite, "Jakobovski/free-spoken-digit-dataset: v1.0.8", Zenodo 2018, CC BY-SA 4.0.

    Args:
        root: folder of the file, or of the clone.
        target: digit, speaker, or a list of both: one task each.
        groups: speaker: none of them is in two splits; None: the data set's own test split.
        mels: bands of a frame, ≥ 1.
        window: seconds of sound in a frame, > 0.
        hop: seconds from one frame to the next, > 0.
        seconds: what a recording may last at most, > 0; None: any time.

    Raises:
        RecipeError: no such files, or damaged ones; groups=speaker where speakers are to be told.
    """

    def __init__(
        self,
        root: str = "data",
        target: str | Sequence[str] = DIGIT,
        groups: str | None = None,
        mels: int = 40,
        window: float = 0.025,
        hop: float = 0.01,
        seconds: float | None = None,
        **split: Any,
    ) -> None:
        super().__init__(RATE, mels, window, hop, seconds, **split)
        self.targets = [target] if isinstance(target, str) else list(target)
        asked = f"{DIGIT}, {SPEAKER} or [{DIGIT},{SPEAKER}]"
        known = bool(self.targets) and set(self.targets) <= {DIGIT, SPEAKER} and len({*self.targets}) == len(self.targets)
        expect(known, "data.target", asked, target)
        if groups is not None:
            expect_choice("data.groups", groups, (SPEAKER,))
            if SPEAKER in self.targets:
                raise RecipeError(
                    f"data.groups={SPEAKER} tests on speakers that training has not heard, who cannot be told: leave it out, or take data.target={DIGIT}"
                )
        self.root, self.groups = Path(root), groups
        self._ids: list[str] = []

    def load(self) -> tuple[Sequences, Sequences | None]:
        """All takes, or those of training and of the test."""
        everything, index = self._takes()
        if self.groups is not None:
            return everything, None
        if not bool((index < OF_TEST).any()) or not bool((index >= OF_TEST).any()):
            raise RecipeError(
                f"{self.root} must have takes below {OF_TEST}, which are the test split, and others; got {int(index.min())} to {int(index.max())}"
            )
        train, test = ((index >= OF_TEST).nonzero()[:, 0], (index < OF_TEST).nonzero()[:, 0])
        self._ids = [self._ids[place] for place in test.tolist()]
        return everything[train], everything[test]

    def ids(self) -> list[str]:
        """The takes by digit, speaker and number, as the data set's files are called."""
        return self._ids

    def _takes(self) -> tuple[Sequences, Tensor]:
        """All takes, and the number of each."""
        form = self.form_at(RATE)
        path = next((self.root / name for name in FILES if (self.root / name).is_file()), None)
        found = self._of_clone() if path is None else of_file(path)
        signals, digit, speaker, index, names = found
        self._ids = [f"{digit[take]}_{names[speaker[take]]}_{index[take]}" for take in range(len(digit))]
        lengths = [len(signal) / RATE for signal in signals]
        self.expect_short(self._ids, lengths, form)
        labels = {DIGIT: torch.from_numpy(digit), SPEAKER: torch.from_numpy(speaker)}
        several = len(self.targets) > 1
        targets = {name if several else "": labels[name] for name in self.targets}
        if SPEAKER in self.targets:
            self.class_names[SPEAKER if several else ""] = names
        groups = None if self.groups is None else labels[SPEAKER]
        return sequences([form.of(signal) for signal in signals], targets, groups, told(lengths, form)), torch.from_numpy(index)

    def _of_clone(self) -> Takes:
        """The takes of the data set's own files, DIGIT_SPEAKER_INDEX.wav."""
        folder = self.root / CLONE / "recordings"
        files = {path: path.stem.split("_") for path in sorted(folder.glob("*.wav"))}
        if not files:
            raise RecipeError(
                f"no speech_digits data in {self.root.absolute()}: looked for {', '.join(FILES)} and {CLONE}/recordings; get it by "
                f"git clone --depth 1 {ADDRESS} {self.root / CLONE}, or type data.root=FOLDER where it lies"
            )
        expect_installed()
        for path, parts in files.items():
            if len(parts) != 3 or not (parts[0] in set("0123456789") and parts[2].isdecimal()):
                raise RecipeError(f"{path} must be called DIGIT_SPEAKER_TAKE.wav: call it so, or take it away")
        names = tuple(sorted({name for _, name, _ in files.values()}))
        digit, speaker, index = (
            np.array([convert(parts) for parts in files.values()])
            for convert in (lambda parts: int(parts[0]), lambda parts: names.index(parts[1]), lambda parts: int(parts[2]))
        )
        return [read(path, head(path), RATE) for path in files], digit, speaker, index, names


Takes = tuple[list[Tensor], np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]  # signals, digits, speakers, numbers, names


def of_file(path: Path) -> Takes:
    """The takes of an npz file.

    Raises:
        RecipeError: arrays that are missing, or do not belong together.
    """
    found = read_arrays(path, ARRAYS)
    signal, offset, names = found["signal"], found["offset"], found["speakers"]
    takes = {name: as_labels(found[name], f"{path}: {name}").numpy() for name in ("digit", "speaker", "index")}
    same_length([*takes.items(), ("offset, less one,", offset[1:])], str(path))
    rises = offset.ndim == 1 and len(offset) > 1 and offset[0] == 0 and bool((np.diff(offset) > 0).all())
    if signal.dtype != np.int16 or not rises or offset[-1] != signal.size:
        raise RecipeError(
            f"{path} must have a signal of 16 bits, and an offset that rises from 0 to its length; got {signal.dtype} and "
            f"{offset[0]} to {offset[-1]}, of {signal.size}"
        )
    if names.dtype.kind != "U" or takes["speaker"].max() >= len(names) or takes["digit"].max() > 9:
        raise RecipeError(f"{path} must have digits 0 to 9, and a name in speakers for each speaker")
    samples = torch.from_numpy(signal.astype(np.float32)) / LOUDEST
    signals = [samples[start:stop] for start, stop in pairwise(offset.tolist())]
    return signals, takes["digit"], takes["speaker"], takes["index"], tuple(map(str, names))
