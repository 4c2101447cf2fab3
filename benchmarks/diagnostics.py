"""What each diagnostic costs at its default interval, as a ratio: `python -m benchmarks.diagnostics`.

A training with the diagnostic and one without take turns in one process, a block of steps each, so that whatever else the machine does
slows both. Every second block has one look at its end. Blocks without tell what the diagnostic costs in each step, a, those with one what a look
costs beside, b − a, in blocks: of B steps, with an interval of N steps, it is a + (b − a) · B / N. What looks at validations is measured over
blocks with one validation, about as often as there is one by default.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch

from benchmarks import interval, machine, print_table
from benchmarks.step import BATCH, Engine, choose_data, configuration
from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.errors import first_line
from recipes.run.process import set_up_process

ROUNDS, BLOCK = 10, 25  # pairs of blocks, and steps of a block


class Turns:
    """Two trainings, in a thread each, of which one runs at a time."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.whose = 0
        self.left = {0, 1}

    def wait_for(self, side: int) -> None:
        """Wait until it is a side's turn."""
        with self.condition:
            self.condition.wait_for(lambda: self.whose == side)

    def pass_on(self, side: int, ends: bool = False) -> None:
        """Let the other side go on."""
        with self.condition:
            if ends:
                self.left.discard(side)
            if 1 - side in self.left:
                self.whose = 1 - side
            self.condition.notify_all()


class TakeTurns(L.Callback):
    """Times blocks of steps of a training, and lets the other training go on between two of them.

    `blocks` has the seconds of each: those of the last step, which may have a look, and the median of the others as often as there are others;
    `whole`: of all together.
    """

    def __init__(self, turns: Turns, side: int, steps: int, clock: Callable[[], float]) -> None:
        self.turns, self.side, self.steps, self.clock = turns, side, steps, clock
        self.blocks: list[float] = []
        self.whole: list[float] = []
        self.marks: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.marks = [self.clock()]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """The end of a step; of a block, wait for the other side."""
        self.marks.append(self.clock())
        if trainer.global_step % self.steps:
            return
        *others, last = (end - begin for begin, end in pairwise(self.marks))
        self.blocks.append(len(others) * statistics.median(others) + last)
        self.whole.append(self.marks[-1] - self.marks[0])
        self.turns.pass_on(self.side)
        self.turns.wait_for(self.side)
        self.marks = [self.clock()]


def ratios(name: str, model: str, number: int, clock: Callable[[], float]) -> list[float]:
    """What a diagnostic costs at its default interval, in each pair of blocks after the first.

    Raises:
        RecipeError: it is refused with this model.
    """
    every = Catalogue().groups["diagnostics"][name].node.get("every_n_steps")
    looks = [f"diagnostics.{name}.every_n_steps={2 * BLOCK}"] if every else []
    total = 2 * BLOCK * (number + 1)
    _, data = choose_data(model, None)
    turns, sides, errors = Turns(), list[tuple[TakeTurns, dict[str, Any]]](), list[BaseException]()
    for words in ([f"+diagnostics={name}", *looks], []):
        words = [*words, f"trainer.val_every_n_steps={total if every else 2 * BLOCK}"]
        config = configuration(model, False, "cpu", 1, total, words)
        set_up_process(config)
        sides.append((TakeTurns(turns, len(sides), BLOCK, clock), config))

    def train(side: int, folder: Path) -> None:
        turns.wait_for(side)
        try:
            callback, config = sides[side]
            Engine(config, copy.copy(data), folder).fit(callback)
        except BaseException as error:
            errors.append(error)
        finally:
            turns.pass_on(side, ends=True)

    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=train, args=(side, Path(folder) / str(side))) for side in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    (with_it, _), (without, _) = sides
    blocks = [side.blocks if every else side.whole for side in (with_it, without)]
    return costs(blocks[0][2:], blocks[1][2:], every)


def costs(with_it: Sequence[float], without: Sequence[float], every: int | None) -> list[float]:
    """The ratio at an interval of `every` steps, of each two blocks, the second of which has a look; None: of both together."""
    found = []
    for place in range(0, len(with_it), 2):
        plain = sum(without[place : place + 2])
        if every is None:
            found.append(sum(with_it[place : place + 2]) / plain)
        else:
            fixed = 2 * with_it[place] / plain
            found.append(fixed + (2 * with_it[place + 1] / plain - fixed) * BLOCK / every)
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnostics", description=(__doc__ or "").split(":")[0])
    known = [*Catalogue().groups["diagnostics"]]
    parser.add_argument("only", nargs="*", help="diagnostics that are measured; by default all", metavar="NAME")
    parser.add_argument("--models", nargs="+", choices=[*BATCH], default=[*BATCH])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of blocks that count; one more goes first")
    parser.add_argument(
        "--wall-time", action="store_true", help="count wall time; by default CPU time, which other programs lengthen little"
    )
    options = parser.parse_args(words)
    clock = time.perf_counter if options.wall_time else time.process_time
    print(f"torch {torch.__version__}, lightning {L.__version__}, {machine()}, 1 thread")
    rows = []
    for name in options.only or known:
        for model in options.models:
            try:
                found = ratios(name, model, options.rounds, clock)
            except RecipeError as error:
                rows.append([name, model, "", first_line(error)])
                continue
            low, high = interval(found)
            rows.append([name, model, f"{statistics.median(found):.3f}", f"{low:.3f} to {high:.3f}"])
    print_table(["diagnostic", "model", "ratio", "95 % interval"], rows)


if __name__ == "__main__":
    main()
