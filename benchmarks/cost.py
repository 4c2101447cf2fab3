"""What each option costs in a step, as a multiple of a step without it: `python -m benchmarks.cost` writes benchmarks/costs.yaml.

Options are found by walking `conf/`. Each trains the same small model on the same images, and takes turns with a hand-written loop
that does the plain step, block by block in one process: so whatever else the machine does slows both. The cost is the ratio of the two,
divided by the same ratio of a run without the option; what it cannot do without, as its own refusal says, is in both. The catalogue shows
what the file has.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import interval, machine, print_table
from benchmarks.step import BATCH, Engine, Marks, TakeTurns, configuration, hand_written
from plugins.base import implementers
from plugins.errors import RecipeError
from recipes.check.choice import options, plugin_class, select
from recipes.check.harness import digits, give_values, with_companions
from recipes.config.errors import first_line
from recipes.run.build import build_model
from recipes.run.process import set_up_process

FILE = Path(__file__).with_name("costs.yaml")
MODEL = "cnn"
ROUNDS, STEPS = 12, 10
NOTHING = ("init", "metric", "multitask")  # groups that do nothing in a step, or none with one task
Cost = list[float]  # the ratio, and the ends of its interval


class Costs:
    """Ratios of options to a plain step, measured one after the other.

    Args:
        rounds: blocks of each side that count; one more goes first.
        steps: of a block.
        clock: what tells the time.
    """

    def __init__(self, rounds: int = ROUNDS, steps: int = STEPS, clock: Callable[[], float] = time.process_time) -> None:
        self.rounds, self.steps, self.clock = rounds, steps, clock
        self._known: dict[tuple[str, ...], list[float]] = {}

    def of(self, name: str) -> Cost:
        """The cost of an option: the ratio, and the 95 % interval of its median.

        Raises:
            RecipeError: it does not train on these images.
        """
        names = with_companions(name)
        plain = statistics.median(self._against_plain(names[1:]))
        ratios = [ratio / plain for ratio in self._measured(names)]
        return [round(value, 2) for value in (statistics.median(ratios), *interval(ratios))]

    def _against_plain(self, names: tuple[str, ...]) -> list[float]:
        if names not in self._known:
            self._known[names] = self._measured(names)
        return self._known[names]

    def _measured(self, names: Sequence[str]) -> list[float]:
        """A step with some options, in steps of the hand-written loop, in each round."""
        data = copy.copy(digits())
        data.batch_size = BATCH[MODEL]
        config = configuration(MODEL, False, "cpu", 1, self.steps * (self.rounds + 1), tuple(select(names)))
        for name in names:
            give_values(config, name)
        set_up_process(config)
        split = data.splits["train"]
        with tempfile.TemporaryDirectory() as folder:
            engine = Engine(config, data, Path(folder))
            other = hand_written(
                copy.deepcopy(plain_model()), split.x, split.targets[""], engine.batches(torch.device("cpu")), lr=1e-3
            )
            turns = TakeTurns(other, self.steps, Marks(torch.device("cpu"), self.clock))
            engine.fit(turns)
        return [engine / hand for engine, hand in turns.rounds[1:]]


@cache
def plain_model() -> torch.nn.Module:
    """The model of the hand-written loop."""
    config = configuration(MODEL, False, "cpu", 1, 1)
    return build_model(config, digits().shape, digits().tasks[0].outputs, 0)


def asked(only: Sequence[str] = ()) -> list[str]:
    """The options that are measured, as "group/option".

    Args:
        only: names of options or groups that are wanted; empty: all.
    """
    later = [
        name for name in options() if (kind := plugin_class(name)) and implementers([kind], "next_phase")
    ]  # not in a first phase
    found = [name for name in options() if name.split("/")[0] not in NOTHING and name not in later]
    return [name for name in found if not only or {name, *name.split("/")} & set(only)]


def read(path: Path = FILE) -> dict[str, Any]:
    """What was measured; nothing where there is no file."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {"measured": {}, "ratios": {}}


def write(ratios: Mapping[str, Cost], measured: Mapping[str, Any], path: Path = FILE) -> None:
    """Write ratios, those of before that were not measured anew included."""
    head = "# What options cost in a step, as multiples of a plain one, with 95 % intervals; written by `python -m benchmarks.cost`.\n"
    content = {"measured": dict(measured), "ratios": dict(sorted(ratios.items()))}
    path.write_text(
        head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True), encoding="utf-8"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=(__doc__ or "").split(":")[0])
    parser.add_argument(
        "only", nargs="*", help="options or groups that are measured anew, such as wrapper or wrapper/sam; all by default"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="blocks of each side that count; one more goes first")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of a block")
    parser.add_argument(
        "--wall-time", action="store_true", help="count wall time; by default CPU time, which other programs lengthen little"
    )
    parser.add_argument("--output", type=Path, default=FILE, help="the file that is written")
    options = parser.parse_args(words)
    costs = Costs(options.rounds, options.steps, time.perf_counter if options.wall_time else time.process_time)
    names = asked(options.only)
    found: dict[str, Cost] = {name: cost for name, cost in read(options.output)["ratios"].items() if options.only}
    measured = {"date": str(date.today()), "machine": f"{machine()}, 1 thread", "torch": str(torch.__version__)}
    measured["model"] = f"{MODEL} on digits of 8 × 8 pixels, {BATCH[MODEL]} samples a step"
    rows = []
    for name in names:
        try:
            found[name] = cost = costs.of(name)
        except RecipeError as error:
            rows.append([name, "", first_line(error)])
            continue
        rows.append([name, f"{cost[0]:.2f}", f"{cost[1]:.2f} to {cost[2]:.2f}"])
        write(found, measured, options.output)  # one that is stopped keeps what it has
    print_table(["option", "ratio", "95 % interval"], rows)


if __name__ == "__main__":
    main()
