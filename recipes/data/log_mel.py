"""Sound as a spectrum over time: the power in bands as wide as they are told apart by ear, in decibels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plugins.base import RecipeError, expect, expect_count

if TYPE_CHECKING:
    from jaxtyping import Float

LINEAR_TO, MELS_THERE, HERTZ_A_MEL = 1000.0, 15.0, 200 / 3  # below, mels are proportional to the frequency
STEP = torch.tensor(6.4, dtype=torch.float64).log() / 27  # of the logarithm of the frequency, for each mel above
LEAST_POWER = 1e-10  # −100 decibels, which silence has


def to_mels(hertz: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """The pitch of frequencies: hertz · 3/200 below 1,000 hertz, 15 + 27 · ln(hertz/1000) / ln 6.4 above."""
    above = MELS_THERE + (hertz.clamp_min(LINEAR_TO) / LINEAR_TO).log() / STEP
    return torch.where(hertz < LINEAR_TO, hertz / HERTZ_A_MEL, above)


def to_hertz(mels: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """The frequencies of pitches; the inverse of :func:`to_mels`."""
    above = LINEAR_TO * (STEP * (mels - MELS_THERE)).exp()
    return torch.where(mels < MELS_THERE, mels * HERTZ_A_MEL, above)


def mel_bank(rate: int, points: int, mels: int) -> Float[Tensor, "bins {mels}"]:
    """Triangles over the frequencies of a spectrum, evenly spaced in pitch from 0 to rate / 2, each with the area 1.

    Args:
        rate: samples a second.
        points: of the Fourier transform, which gives points / 2 + 1 frequencies.
        mels: how many triangles.

    Source: Slaney, "Auditory Toolbox", Interval Research Corporation, 1998; as in librosa.
    """
    frequencies = torch.linspace(0, rate / 2, points // 2 + 1, dtype=torch.float64)
    ends = to_mels(torch.tensor([0.0, rate / 2], dtype=torch.float64))
    corners = to_hertz(torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64))
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - low) / (middle - low)
    falling = (high - frequencies[:, None]) / (high - middle)
    return torch.minimum(rising, falling).clamp_min(0) * (2 / (high - low))


@dataclass(frozen=True)
class LogMel:
    """How a recording becomes frames: one every `hop` seconds, of the sound in `window` seconds around it, with a number a band.

    10 · log₁₀ max(Σ_f bank(f) |X(f)|², 10⁻¹⁰), X the Fourier transform of the samples, in [−1, 1], under a Hann window; before and behind
    the recording there is silence. A recording of n samples has 1 + ⌊n / hop⌋ frames.

    Source: Davis & Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition in Continuously Spoken
    Sentences", IEEE Transactions on Acoustics, Speech and Signal Processing 1980, whose bands they are, without the cosine transform.

    Args:
        rate: samples a second, ≥ 1.
        mels: bands, ≥ 1.
        window: seconds of sound in a frame, > 0.
        hop: seconds from one frame to the next, > 0.

    Raises:
        RecipeError: a window or a hop of less than a sample, more bands than the spectrum tells apart.
    """

    rate: int
    mels: int
    window: float
    hop: float

    def __post_init__(self) -> None:
        for name, count in (("rate", self.rate), ("mels", self.mels)):
            expect_count(f"data.{name}", count)
        for name, seconds in (("window", self.window), ("hop", self.hop)):
            fits = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds * self.rate >= 1
            expect(fits, f"data.{name}", f"seconds, at least one sample of {self.rate:,} a second", seconds)
        if self.mels > self.points or not bool(self.bank.any(0).all()):  # a frequency lies in two triangles at most
            fewer = (
                mels
                for mels in range(min(self.mels - 1, self.points), 0, -1)
                if bool(mel_bank(self.rate, self.points, mels).any(0).all())
            )
            most = next(fewer, 0)
            raise RecipeError(
                f"data.mels={self.mels} bands are more than a window of {self.window:g} s tells apart at {self.rate:,} samples a second: type "
                f"{f'data.mels={most} or fewer' if most else 'fewer'}, or a longer data.window"
            )

    @property
    def step(self) -> int:
        """Samples from one frame to the next."""
        return round(self.hop * self.rate)

    @property
    def width(self) -> int:
        """Samples in a window."""
        return round(self.window * self.rate)

    @property
    def points(self) -> int:
        """Points of the Fourier transform: the next power of two."""
        return max(2, 1 << (self.width - 1).bit_length())

    @cached_property
    def bank(self) -> Tensor:
        """The triangles, (frequencies, mels)."""
        return mel_bank(self.rate, self.points, self.mels)

    def frames(self, samples: int) -> int:
        """The frames of so many samples."""
        return 1 + samples // self.step

    def of(self, signal: Float[Tensor, " samples"]) -> Float[Tensor, "frames mels"]:
        """The frames of a recording, computed in double precision, so that no number of threads changes them."""
        spectrum = torch.stft(
            signal.double(),
            self.points,
            self.step,
            self.width,
            torch.hann_window(self.width, dtype=torch.float64),
            pad_mode="constant",
            return_complex=True,
        )
        power = spectrum.abs().square().T @ self.bank
        return (10 * power.clamp_min(LEAST_POWER).log10()).float()

    def as_plain(self) -> dict[str, Any]:
        """What there is to know of it, as plain values."""
        return {"rate": self.rate, "mels": self.mels, "window": self.window, "hop": self.hop}
