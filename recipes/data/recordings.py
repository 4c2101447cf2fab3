"""Sound in files: read, averaged over channels, put at one rate."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plugins.base import RecipeError

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
PACKAGES = ("soundfile", "soxr")  # of the extra `audio`
STREAMED = (0, 2**32 - 1)  # bytes that a wav file tells of itself where its writer did not know them
ENOUGH = 0.9  # share of the samples that a head tells of, which for mp3 is an estimate


class Head(NamedTuple):
    """What a file tells of its sound."""

    rate: int  # samples a second
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples / self.rate


def expect_installed() -> None:
    """Refuse to read files without the packages that do."""
    if lacking := [package for package in PACKAGES if find_spec(package) is None]:
        raise RecipeError(f'sound in files needs {", ".join(lacking)}: pip install -e ".[audio]"')


def head(path: Path) -> Head:
    """What a file tells of its sound, without decoding it.

    Raises:
        RecipeError: it is no sound, has none, or ends before its head says so.
    """
    import soundfile

    try:
        if not path.is_file() and path.exists():  # a pipe would be waited for
            raise RecipeError(f"{path} is no file: take it away")
        with open(path, "rb") as file:
            begin = file.read(12)
        if path.suffix.lower() == ".mp3" and not is_mp3(begin):  # of which its reader would print a page
            raise unreadable(path, "Format not recognised")
        found, there = soundfile.info(str(path)), path.stat().st_size
    except (soundfile.SoundFileError, OSError) as error:
        raise unreadable(path, error) from None
    if (told := told_size(begin)) > there:
        raise broken_off(path, f"its head tells of {told:,} bytes, there are {there:,}")
    if not found.frames:
        raise RecipeError(f"{path} has no sound in it: write it again, or take it away")
    return Head(found.samplerate, found.channels, found.frames)


def is_mp3(begin: bytes) -> bool:
    """Whether a file begins as mp3 does: with tags, or the eleven bits set of a frame."""
    return begin[:3] == b"ID3" or (begin[:1] == b"\xff" and begin[1:2] >= b"\xe0")


def told_size(begin: bytes) -> int:
    """The bytes that a wav file says it has; 0 where it does not, or the file is of another kind."""
    told = int.from_bytes(begin[4:8], "little")
    return told + 8 if begin[:4] == b"RIFF" and begin[8:12] == b"WAVE" and told not in STREAMED else 0


def read(path: Path, told: Head, rate: int) -> Tensor:
    """The samples of a file, (samples,), the mean of its channels, at a rate.

    Args:
        path: of the file.
        told: its head.
        rate: samples a second, to which others are resampled.

    Raises:
        RecipeError: it cannot be read to its end, or holds numbers that are NaN or infinite.
    """
    import soundfile
    import soxr

    try:
        samples, own = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise unreadable(path, error) from None
    if len(samples) < ENOUGH * told.samples:
        raise broken_off(path, f"its head tells of {told.samples:,} samples, there are {len(samples):,}")
    if not np.isfinite(samples).all():
        raise RecipeError(f"{path} holds samples that are NaN or infinite: write it again, or take it away")
    signal = samples.mean(1)
    return torch.from_numpy(signal if own == rate else soxr.resample(signal, own, rate))


def broken_off(path: Path, how: str) -> RecipeError:
    """The error about a file that is shorter than it says."""
    return RecipeError(f"{path} breaks off ({how}): write it again, or take it away")


def unreadable(path: Path, error: Exception | str) -> RecipeError:
    """The error about a file that is no sound."""
    reason = (str(error).splitlines() or [type(error).__name__])[0].replace(f"Error opening {str(path)!r}: ", "").rstrip(".")
    return RecipeError(f"{path} cannot be read as sound ({reason}): write it again, or take it away")
