"""Time per step on one and two processes, side by side with a hand-written DistributedDataParallel loop.

`python -m benchmarks.scaling` starts the processes itself. In each of them the engine and the hand-written loop take turns, a
block of steps each, with the same mathematics on the same model and the same share of each batch. What a step of the engine's
sends to the other process is counted after that.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import interval, machine, print_table
from benchmarks.step import BATCH, Engine, Marks, TakeTurns, choose_data, configuration
from recipes.data.base import Data
from recipes.launch.watch import hold_port
from recipes.run.process import set_up_process

PROCESSES = (1, 2)
ROUNDS = {"mlp": 40, "cnn": 300}
STEPS = {"mlp": 50, "cnn": 1}


def hand_written(model: nn.Module, engine: Engine, lr: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Train a model with SGD on the engine's batches, each process on its share; running loss and accuracy after each step."""
    split = engine.data.splits["train"]
    x, targets = split.between(0, len(split))
    y = targets[""]
    if dist.is_initialized():
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    total, hits, seen = torch.zeros(()), torch.zeros(()), 0
    for index in engine.batches(torch.device("cpu")):
        images, labels = x.index_select(0, index), y.index_select(0, index)
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        optimizer.zero_grad()
        output = model(images)
        loss = F.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            total += loss.detach() * len(labels)
            hits += (output.detach().argmax(1) == labels).sum()
        seen += len(labels)
        yield total / seen, hits / seen


def measure(model: str, data: Data, processes: int, rounds: int, steps: int) -> list[tuple[float, float]]:
    """Seconds of a step by the engine and by hand, in each round after the first."""
    config = configuration(model, False, "cpu", 1, steps * (rounds + 1))
    config["trainer"] |= {"devices": processes, "strategy": "ddp" if processes > 1 else "auto"}
    set_up_process(config)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(config, data, Path(folder))
        other = hand_written(copy.deepcopy(engine.module.model), engine, config["optimizer"]["lr"])
        turns = TakeTurns(other, steps, Marks(torch.device("cpu"), time.perf_counter))
        engine.fit(turns)
    return turns.rounds[1:]


class Sent(L.Callback):
    """Counts the numbers in each message of a step between CPU processes, as torch's profiler sees them."""

    STEPS = 3  # that are looked at, after as many others

    def __init__(self) -> None:
        self.messages: list[int] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at some steps in the middle of the training."""
        if trainer.global_step == self.STEPS:
            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True)
            self.profiler.start()
        elif trainer.global_step == 2 * self.STEPS:
            self.profiler.stop()
            shapes = [event.input_shapes[0] for event in self.profiler.events() if event.name.startswith("gloo:")]
            self.messages = sorted(math.prod(shape) for shape in shapes)[:: self.STEPS]  # each step sends the same


def count_sent(model: str, data: Data, processes: int, words: Sequence[str] = ()) -> list[int]:
    """The numbers in each message of the engine's step, with what else `words` ask for."""
    if processes == 1:
        return []
    config = configuration(model, False, "cpu", 1, 2 * Sent.STEPS + 1, words)
    config["trainer"] |= {"devices": processes, "strategy": "ddp"}
    sent = Sent()
    with tempfile.TemporaryDirectory() as folder:
        Engine(config, data, Path(folder)).fit(sent)
    return sent.messages


def start(words: Sequence[str], processes: int) -> tuple[list[Any], list[int]]:
    """What the first of several processes, started side by side as torchrun does, has measured."""
    with hold_port() as held:
        return _measured(words, processes, held.getsockname()[1])


def _measured(words: Sequence[str], processes: int, port: int) -> tuple[list[Any], list[int]]:
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": "x"}
    common |= {"LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scaling", *words, "--worker", str(processes)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,  # torch's profiler tells each of its starts there
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, said, strict=True):
        if process.returncode:
            sys.exit(f"{errors}error: a process of the benchmark failed")
    output, _ = said[0]
    rounds, sent = json.loads(output.splitlines()[-1])
    return rounds, sent


def main(words: Sequence[str] | None = None) -> None:
    """Run all comparisons and print a table."""
    words = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").split(".")[0])
    parser.add_argument("--model", choices=list(STEPS), default="cnn")
    parser.add_argument("--rounds", type=int, help="blocks of each side that count (mlp: 40, cnn: 300); one more goes first")
    parser.add_argument("--steps", type=int, help="steps of a block (mlp: 50, cnn: 1)")
    parser.add_argument("--root", help="folder with fashion_mnist.npz or torchvision's files; without it, digits of 28 × 28")
    parser.add_argument("--words", nargs="+", default=[], help="of train.py, such as +wrapper=sam: for what is sent, not timed")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    rounds, steps = options.rounds or ROUNDS[options.model], options.steps or STEPS[options.model]
    if options.worker:
        _, data = choose_data(options.model, options.root)
        measured = measure(options.model, data, options.worker, rounds, steps)
        print(json.dumps([measured, count_sent(options.model, data, options.worker, options.words)]))
        if dist.is_initialized():
            dist.destroy_process_group()
        return
    print(f"torch {torch.__version__}, lightning {L.__version__}, {machine()}, {os.cpu_count()} cores, 1 thread a process")
    rows = []
    for processes in PROCESSES:
        blocks, sent = start(words, processes)
        engine, hand = (statistics.median(side) * 1000 for side in zip(*blocks, strict=True))
        ratios = [a / b for a, b in blocks]
        low, high = interval(ratios)
        row = [f"{options.model}, batch {BATCH[options.model]}", str(processes), f"{rounds} × {steps}"]
        row += [f"{engine:.3f}", f"{hand:.3f}", f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append([*row, " + ".join(map(str, reversed(sent))) or "-"])
    columns = ["model", "processes", "rounds × steps", "engine ms", "by hand ms", "ratio", "95 % interval"]
    print_table([*columns, "numbers sent a step"], rows)


if __name__ == "__main__":
    main()
