"""Spoken digits of tests/data as arrays and as files."""

from functools import cache

import numpy as np

from tests.command import ROOT

RATE = 8000


@cache
def takes():
    """The excerpt: its arrays, with the signal of each take, floats in [−1, 1]."""
    with np.load(ROOT / "tests" / "data" / "fsdd.npz") as file:
        found = {name: file[name] for name in file}
    pieces = np.split(found["signal"].astype(np.float32) / 2**15, found["offset"][1:-1])
    return {**found, "signals": pieces}


def write(folder, digits=(0, 1, 2), part="", ending="wav", each=None, rate=RATE):
    """Takes of some digits as files, a folder for each digit; returns the folder."""
    import soundfile

    found = takes()
    for digit in digits:
        place = folder / part / f"digit {digit}"
        place.mkdir(parents=True, exist_ok=True)
        for number in np.flatnonzero(found["digit"] == digit)[:each].tolist():
            soundfile.write(place / f"{number:03}.{ending}", found["signals"][number], rate)
    return folder
