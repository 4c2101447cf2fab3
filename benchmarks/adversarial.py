"""What adversarial training costs, beside a plain step: passes and time, `python -m benchmarks.adversarial`.

Passes are counted in a step of the run. Its time is measured in turns with a hand-written loop that does the plain step, in one process, so that
whatever else the machine does slows both; the ratio of the two is divided by that of a run without an attack. Evaluations attack nothing here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from benchmarks import interval, machine, print_table
from benchmarks.step import BATCH, Engine, choose_data, compare, configuration
from recipes.data.base import Data
from recipes.run.process import set_up_process

MODEL = "cnn"
ROUNDS = 40
STEPS = {"pgd": 10, "trades": 10}  # of the attacks that make several
ATTACKS = ("fgsm", "fgsm_rs", "n_fgsm", "free", "pgd", "trades")
LIMITS = {"fgsm": 2.1, "fgsm_rs": 2.1, "n_fgsm": 2.1, "free": 1.15, "pgd": 10.5}  # times a plain step


def words_of(attack: str) -> list[str]:
    """The words that choose an attack."""
    steps = [f"adversarial.steps={STEPS[attack]}"] if attack in STEPS else []
    return [f"+adversarial={attack}", "adversarial.eps=0.1", "adversarial.eval_samples=0", *steps]


class CountPasses(L.Callback):
    """How often a step goes forward and backward through the model, of the last step."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: object, batch_idx: int) -> None:
        """Begin to count."""
        self.forward = self.backward = 0
        self.handle = pl_module.model.register_forward_hook(self._count)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: object, batch: object, batch_idx: int) -> None:
        """The end of a step."""
        self.handle.remove()

    def _count(self, model: nn.Module, inputs: object, output: Tensor) -> None:
        self.forward += 1
        if output.requires_grad:
            output.register_hook(self._count_backward)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward += 1


def passes(words: Sequence[str], data: Data) -> tuple[int, int]:
    """Forward and backward passes through the model in one step with these words."""
    config = configuration(MODEL, False, "cpu", 1, 2, words)
    set_up_process(config)
    count = CountPasses()
    with tempfile.TemporaryDirectory() as folder:
        Engine(config, data, Path(folder)).fit(count)
    return count.forward, count.backward


def ratios(words: Sequence[str], data: Data, rounds: int, clock: Callable[[], float]) -> list[float]:
    """A step with these words, in plain steps written by hand, in each round."""
    config = configuration(MODEL, False, "cpu", 1, rounds + 1, words)
    set_up_process(config)
    return [engine / hand for engine, hand in compare(config, data, 0, 1, torch.device("cpu"), clock)]


def main(words: Sequence[str] | None = None) -> None:
    """Count, measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adversarial", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="steps of each side that count; one more goes first")
    parser.add_argument(
        "--wall-time", action="store_true", help="count wall time; by default CPU time, which other programs lengthen little"
    )
    parser.add_argument("--root", help="folder with fashion_mnist.npz or torchvision's files; without it, digits of 28 × 28")
    options = parser.parse_args(words)
    clock = time.perf_counter if options.wall_time else time.process_time
    name, data = choose_data(MODEL, options.root)
    print(f"{MODEL}, batch {BATCH[MODEL]}, {name}, {options.rounds} rounds, torch {torch.__version__}, {machine()}, 1 thread")
    plain = statistics.median(ratios([], data, options.rounds, clock))
    rows = []
    for attack in options.attacks:
        forward, backward = passes(words_of(attack), data)
        found = [ratio / plain for ratio in ratios(words_of(attack), data, options.rounds, clock)]
        low, high = interval(found)
        told = f"{attack}, {STEPS[attack]} steps" if attack in STEPS else attack
        limit = f"{LIMITS[attack]:g}" if attack in LIMITS else ""
        rows.append([told, str(forward), str(backward), f"{statistics.median(found):.2f}", f"{low:.2f} to {high:.2f}", limit])
    print_table(["attack", "forward", "backward", "ratio", "95 % interval", "at most"], rows)


if __name__ == "__main__":
    main()
