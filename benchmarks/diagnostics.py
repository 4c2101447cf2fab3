"""What each diagnostic costs at its default interval, as a ratio: `python -m benchmarks.diagnostics`.

A training with the diagnostic and one without take turns in one process, a block of steps each, so that whatever else the machine does
slows both. Several such pairs are measured, of which every other one begins without it: where arrays lie in memory makes up to a tenth, on either
side. With the diagnostic each block has one look, at its end, or one validation, at its begin. Of a block the median step tells what a step takes,
m, and its first and last one what a look or a validation takes beside, e. With an interval of N steps the ratio is m / m₀ + (e − e₀) / (N · m₀),
where m₀ and e₀ are those without it. What looks at validations is taken to do so every 50 steps, which is about as often as there is one by default.
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

from benchmarks import interval, keep_memory, machine, print_table
from benchmarks.step import BATCH, Engine, choose_data, configuration
from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue
from recipes.config.errors import first_line
from recipes.run.process import set_up_process

ROUNDS = 40  # pairs of blocks
PAIRS = 4  # of trainings
STEPS = {"mlp": 50, "cnn": 6}  # of a block: many where a step is short, so that its data is in a warm cache
VALIDATIONS = 50  # steps from one to the next
Block = tuple[float, float]  # seconds of a step, and what its first and last one took beside


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
    """Times blocks of steps of a training, and lets the other training go on between two of them."""

    def __init__(self, turns: Turns, side: int, steps: int, clock: Callable[[], float]) -> None:
        self.turns, self.side, self.steps, self.clock = turns, side, steps, clock
        self.blocks: list[Block] = []
        self.marks: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.marks = [self.clock()]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """The end of a step; of a block, wait for the other side."""
        self.marks.append(self.clock())
        if trainer.global_step % self.steps:
            return
        taken = [end - begin for begin, end in pairwise(self.marks)]
        step = statistics.median(taken)
        self.blocks.append((step, taken[0] + taken[-1] - 2 * step))
        self.turns.pass_on(self.side)
        self.turns.wait_for(self.side)
        self.marks = [self.clock()]


def ratios(name: str, model: str, number: int, clock: Callable[[], float], first: int = 0) -> list[float]:
    """What a diagnostic costs at its default interval, in each pair of blocks after the first.

    Args:
        name, model: what is measured.
        number: pairs of blocks.
        clock: tells seconds.
        first: which training begins, 0 that with the diagnostic or 1.

    Raises:
        RecipeError: it is refused with this model.
    """
    every = Catalogue().groups["diagnostics"][name].node.get("every_n_steps")
    block = STEPS[model]
    looks = [f"diagnostics.{name}.every_n_steps={block}"] if every else []
    total = block * (number + 2)
    _, data = choose_data(model, None)
    turns, sides, errors = Turns(), list[tuple[TakeTurns, dict[str, Any]]](), list[BaseException]()
    both: list[list[str]] = [[f"+diagnostics={name}", *looks], []]
    for words in (both[first], both[1 - first]):
        words = [*words, f"trainer.val_every_n_steps={total if every else block}"]
        config = configuration(model, False, "cpu", 1, total, words)
        set_up_process(config)
        sides.append((TakeTurns(turns, len(sides), block, clock), config))

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
    with_it, without = (sides[side][0] for side in (first, 1 - first))
    return costs(with_it.blocks[2:], without.blocks[2:], every or VALIDATIONS)


def costs(with_it: Sequence[Block], without: Sequence[Block], every: int) -> list[float]:
    """The ratio at an interval of `every` steps, of each two blocks: m / m₀ + (e − e₀) / (every · m₀)."""
    pairs = zip(with_it, without, strict=True)
    return [step / plain + (beside - none) / (every * plain) for (step, beside), (plain, none) in pairs]


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnostics", description=(__doc__ or "").split(":")[0])
    known = [*Catalogue().groups["diagnostics"]]
    parser.add_argument("only", nargs="*", help="diagnostics that are measured; by default all", metavar="NAME")
    parser.add_argument("--models", nargs="+", choices=[*BATCH], default=[*BATCH])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of blocks that count; two more go first")
    parser.add_argument(
        "--wall-time", action="store_true", help="count wall time; by default CPU time, which other programs lengthen little"
    )
    options = parser.parse_args(words)
    clock = time.perf_counter if options.wall_time else time.process_time
    keep_memory()
    print(f"torch {torch.__version__}, lightning {L.__version__}, {machine()}, 1 thread")
    rows = []
    for name in options.only or known:
        for model in options.models:
            try:
                number = -(-options.rounds // PAIRS)
                found = [ratio for pair in range(PAIRS) for ratio in ratios(name, model, number, clock, pair % 2)]
            except RecipeError as error:
                rows.append([name, model, "", first_line(error)])
                continue
            low, high = interval(found)
            rows.append([name, model, f"{statistics.median(found):.3f}", f"{low:.3f} to {high:.3f}"])
    print_table(["diagnostic", "model", "ratio", "95 % interval"], rows)


if __name__ == "__main__":
    main()
