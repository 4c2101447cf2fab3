"""Train every pair of options by itself, which takes much longer than the runs that cover all pairs: before a release.

    python -m tests.sweeps.all_pairs [PART ...]

Each PART, a group such as wrapper or an option such as wrapper/sam, leaves the pairs that have it. Prints what is wrong, a pair a
line, and ends with exit code 1 if anything is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from recipes.check.refusals import TIMES
from recipes.check.selections import everything, fault_of


def chosen(parts: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that can be typed and have each of the parts."""
    known = {part for name in everything().names for part in (name, name.split("/")[0])}
    if unknown := [part for part in parts if part not in known]:
        sys.exit(f"error: {unknown[0]} is neither a group nor an option of a technique")
    pairs = everything().pairs
    return [pair for pair in pairs if all(any(part in (name, name.split("/")[0]) for name in pair) for part in parts)]


Asked = tuple[tuple[str, str], tuple[str, ...], bool]


def asked(pairs: Sequence[tuple[str, str]]) -> list[Asked]:
    """Each pair, what is trained for it, and whether it is listed as refused: found once, for all processes."""
    complete, pinned = everything().complete, everything().pinned
    return [(pair, names := complete(pair), any(few <= set(names) for few in pinned)) for pair in pairs]


def faults(pairs: Sequence[Asked]) -> list[str]:
    """What is wrong with some pairs, trained one after the other."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for pair, names, listed in pairs:
            fault = fault_of(names, Path(folder))
            if fault is not None and not (fault.refused and listed):
                found.append(f"{TIMES.join(pair)} {'is refused and not listed' if fault.refused else 'fails'}: {fault.text}")
            elif fault is None and listed:
                found.append(f"{TIMES.join(pair)} is listed as refused and trains")
    return found


def main(parts: Sequence[str]) -> int:
    """Train the pairs in as many processes as there are cores; the exit code."""
    pairs = asked(chosen(parts))
    shares = [pairs[start : start + 20] for start in range(0, len(pairs), 20)]
    wrong = 0
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for number, found in enumerate(pool.map(faults, shares), 1):
            print(*found, sep="\n", end="\n" if found else "")
            wrong += len(found)
            print(f"{min(20 * number, len(pairs))} of {len(pairs)} pairs", file=sys.stderr)
    print(f"{len(pairs)} pairs of {len(everything().names)} options, {wrong} of them wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
