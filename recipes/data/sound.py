"""What data of sound shares: the form of its frames, which belongs to a trained model, and how long a recording may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from plugins.base import RecipeError, expect_count, expect_positive
from recipes.data.base import Data
from recipes.data.log_mel import LogMel
from recipes.data.memory import COPIES, fits
from recipes.launch.ranks import world

READERS = 8  # threads that read files; they wait for the disk
SPECTRUM = 24  # bytes of a point of a frame while it is


class SoundData(Data):
    """Recordings as sequences of log-mel features, `features` (frames, mels) and `mask` (frames,), filled up to the longest.

    How frames are computed belongs to a trained model: on other data its form is taken, and another one that is asked for is refused.

    Args:
        rate: samples a second; None: as the data has them.
        mels: bands of a frame, ≥ 1.
        window: seconds of sound in a frame, > 0.
        hop: seconds from one frame to the next, > 0.
        seconds: what a recording may last at most, > 0; None: any time.

    Raises:
        RecipeError: recordings that last longer, or whose frames do not fit into the memory.
    """

    encoded: ClassVar[str] = "log-mel features of recordings"
    takes_arrays: ClassVar[bool] = True

    def __init__(
        self,
        rate: int | None = None,
        mels: int = 40,
        window: float = 0.025,
        hop: float = 0.01,
        seconds: float | None = None,
        **split: Any,
    ) -> None:
        super().__init__(**split)
        if rate is not None:
            expect_count("data.rate", rate)
        expect_count("data.mels", mels)
        for name, given in (("window", window), ("hop", hop), ("seconds", seconds)):
            if given is not None or name != "seconds":
                expect_positive(f"data.{name}", given)  # type: ignore[arg-type]
        self.seconds: float | None = seconds
        self.form: LogMel | None = None
        self.asked: dict[str, Any] = {"mels": mels, "window": window, "hop": hop, **({} if rate is None else {"rate": rate})}

    def state(self) -> dict[str, Any]:
        """How frames are computed."""
        return {} if self.form is None else self.form.as_plain()

    def load_state(self, state: dict[str, Any]) -> None:
        """Compute frames as another run did; of a run that has learned nothing, as asked.

        Raises:
            RecipeError: another form is asked for, or this is none.
        """
        if not state:
            return
        try:
            form = LogMel(**state)
        except (TypeError, RecipeError) as error:
            raise RecipeError(f"this is no form of sound: {error}") from None
        for name, value in self.asked.items():
            if value != state[name]:
                raise RecipeError(
                    f"data.{name} must be {state[name]:g}, with which the run was trained, got {value:g}: type data.{name}={state[name]:g}"
                )
        self.form = form

    def form_at(self, rate: int) -> LogMel:
        """How frames are computed, at this rate if none is known or asked for."""
        if self.form is None:
            self.form = LogMel(**{"rate": rate, **self.asked})
        return self.form

    def expect_short(self, names: Sequence[Any], seconds: Sequence[float], form: LogMel) -> None:
        """Refuse recordings that last longer than `data.seconds`, or too long for the memory.

        Args:
            names: of the recordings.
            seconds: that each lasts.
            form: of the frames.
        """
        longest = max(range(len(seconds)), key=seconds.__getitem__)
        if self.seconds is not None and seconds[longest] > self.seconds:
            raise RecipeError(
                f"{names[longest]} lasts {seconds[longest]:.2f} s, longer than data.seconds={self.seconds:g}: cut it, take it away, or type "
                f"data.seconds={math.ceil(seconds[longest])}"
            )
        frames = [form.frames(round(each * form.rate)) for each in seconds]
        size = 4 * form.mels * sum(frames) + SPECTRUM * form.points * sum(sorted(frames)[-READERS:]) / COPIES
        if not fits(size, world()):
            raise RecipeError(
                f"{sum(seconds) / 3600:.1f} hours of sound, the longest recording of {max(seconds) / 60:.1f} minutes, take {size / 2**30:.1f} GiB, "
                f"for which the memory is too small: type a longer data.hop or fewer data.mels, or cut recordings or take them away"
            )


def told(lengths: Sequence[float], form: LogMel) -> str:
    """What the recordings are, for the first lines of a run."""
    return (
        f"{len(lengths):,} recordings of {min(lengths):.2f} to {max(lengths):.2f} s at {form.rate:,} samples a second, as frames of "
        f"{form.mels} bands every {1000 * form.hop:g} ms"
    )
