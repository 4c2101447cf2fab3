"""Time per training step, side by side with a hand-written PyTorch loop: `python -m benchmarks.step`.

Both do the same mathematics on the same model and data: the test of this file holds their weights together. They take
turns in one process, a block of steps each, so that whatever else the machine does slows both. The engine is the one
that `python train.py` runs: Lightning's Trainer with metrics.csv, checkpoints and validation at their default intervals.
"""

from __future__ import annotations

import argparse
import copy
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from torch import Tensor, nn

from benchmarks import interval, machine, print_table
from benchmarks.data import ResizedDigits, has_fashion_mnist
from recipes.config.catalogue import FOLDER
from recipes.config.launchers import offer_launchers
from recipes.data.base import Data
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.engine.checkpoint import BestAndLast
from recipes.engine.module import RecipeModule
from recipes.engine.stop import StopOnSignal
from recipes.run.build import build_data, build_loggers, build_plugins, make_module
from recipes.run.process import set_up_process
from recipes.run.progress import ProgressBar
from recipes.run.trainer import make_trainer

ROUNDS = {"mlp": 40, "cnn": 150}
STEPS = {"mlp": 50, "cnn": 1}  # of a block: long enough for a warm cache, or as short as can be where no cache holds a step
BATCH = {"mlp": 32, "cnn": 128}
CUTOUT = {"mlp": 4, "cnn": 8}  # of images of 8 × 8 and of 28 × 28 pixels
EPS, ALPHA, MAX_NORM, DECAY = 0.1, 0.2, 1.0, 0.99
TECHNIQUES = (
    *("+regularizer=label_smoothing", f"regularizer.label_smoothing.eps={EPS}"),
    *("+augmentation=[mixup,cutout]", f"augmentation.mixup.alpha={ALPHA}"),
    *("+clipping=norm", f"clipping.max_norm={MAX_NORM}"),
    *("+averaging=ema", f"averaging.decay={DECAY}"),
)


# ------------------------------------------------------------------ by hand


@dataclass
class Draws:
    """What is random in a step: the squares' centres, the partners and the shares of a mix."""

    rows: Tensor
    columns: Tensor
    partner: Tensor
    share: Tensor


def draw(images: Tensor) -> Draws:
    """Draws of a step for images (samples, channels, height, width)."""
    samples, _, height, width = images.shape
    alpha = torch.tensor(ALPHA, device=images.device)
    beta = torch.distributions.Beta(alpha, alpha, validate_args=False)
    return Draws(
        torch.randint(height, (samples,), device=images.device),
        torch.randint(width, (samples,), device=images.device),
        torch.randperm(samples, device=images.device),
        beta.sample((samples,)),
    )


def change(images: Tensor, labels: Tensor, classes: int, draws: Draws, size: int) -> tuple[Tensor, Tensor]:
    """Images after cutout and mixup, and their smoothed and mixed targets."""
    row, column = (torch.arange(length, device=images.device) + size // 2 for length in images.shape[-2:])
    row, column = row - draws.rows[:, None], column - draws.columns[:, None]
    inside_rows, inside_columns = (((place >= 0) & (place < size)).float() for place in (row, column))
    images = images * (1 - inside_rows[:, None, :, None] * inside_columns[:, None, None, :])
    targets = torch.full((len(labels), classes), EPS / (classes - 1), device=images.device)
    targets.scatter_(1, labels[:, None], 1 - EPS)
    images = torch.lerp(images.index_select(0, draws.partner), images, draws.share[:, None, None, None])
    return images, torch.lerp(targets.index_select(0, draws.partner), targets, draws.share[:, None])


def hand_written(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batches: Iterable[Tensor],
    lr: float,
    cutout: int = 0,
    draws: Callable[[Tensor], Draws] = draw,
    average: list[Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Train with SGD, with the five techniques where `cutout` is not 0; running loss and accuracy after each step.

    `average`, an empty list, takes the moving average of the weights.
    """
    parameters: list[Tensor] = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=lr)
    average = [] if average is None else average
    total, hits, seen = torch.zeros((), device=x.device), torch.zeros((), device=x.device), 0
    for index in batches:
        images, labels = x.index_select(0, index), y.index_select(0, index)  # faster than x[index]
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        if cutout:
            images, targets = change(images, labels, 10, draws(images), cutout)
        optimizer.zero_grad()
        output = model(images)
        loss = F.cross_entropy(output, targets if cutout else labels)
        loss.backward()
        if cutout:
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        with torch.no_grad():
            if cutout and average:
                torch._foreach_lerp_(average, parameters, 1 - DECAY)
            elif cutout:
                average.extend(parameter.clone() for parameter in parameters)
            output = output.detach()
            total += (F.cross_entropy(output, labels) if cutout else loss.detach()) * len(labels)
            hits += (output.argmax(1) == labels).sum()
        seen += len(labels)
        yield total / seen, hits / seen


# ------------------------------------------------------------------ by the engine


def configuration(
    model: str, techniques: bool, device: str, threads: int, steps: int, further: Sequence[str] = ()
) -> dict[str, Any]:
    """The resolved config of the command that the engine's side stands for."""
    words = [f"model={model}", "logger=csv", f"trainer.accelerator={'gpu' if device.startswith('cuda') else 'cpu'}"]
    words += [f"trainer.num_threads={threads}", f"max_steps={steps}"]
    if techniques:
        words += [*TECHNIQUES, f"augmentation.cutout.size={CUTOUT[model]}"]
    offer_launchers()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return OmegaConf.to_container(compose("train", [*words, *further]), resolve=True)  # type: ignore[return-value]


class Engine:
    """The engine's side of a comparison, as `recipes.run.run` puts it together for `python train.py`."""

    def __init__(self, config: dict[str, Any], data: Data, folder: Path) -> None:
        self.config, self.data, self.folder = config, data, folder
        plugins = build_plugins(config)
        self.module: RecipeModule = make_module(config, data, plugins)
        self.callbacks = [*plugins, BestAndLast(folder / "checkpoints", "val/acc", 500, StopOnSignal())]
        self.callbacks.append(ProgressBar(Console(file=io.StringIO())))

    def loader(self) -> StepLoader:
        """Batches in the order of a run, from its start, or from where the module is that trains on them."""
        return StepLoader(self.data.splits["train"], self.data.batch_size, self.config["seed"])

    def fit(self, *callbacks: L.Callback) -> None:
        """Train for as long as the config says."""
        loggers = build_loggers(self.config, self.folder, {})
        trainer = make_trainer(self.config, self.folder, loggers, [*self.callbacks, *callbacks])
        loader, validation = self.loader(), EvaluationLoader(self.data.splits["val"])
        loader.device = validation.device = trainer.strategy.root_device
        trainer.fit(self.module, loader, validation)

    def batches(self, device: torch.device) -> Iterator[Tensor]:
        """The indices of each step, in the order in which the engine takes them."""
        loader = self.loader()
        loader.device = device
        for epoch in count():
            yield from loader.order(epoch)


# ------------------------------------------------------------------ taking turns


class Marks:
    """Points in time; on a GPU of its own clock, so that nothing has to wait for it."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.cuda, self.clock = device.type == "cuda", clock
        self.marks: list[Any] = []

    def add(self) -> None:
        """Mark now."""
        if self.cuda:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(self.clock())

    def median(self) -> float:
        """The median of the seconds between two marks; forgets them."""
        marks, self.marks = self.marks, []
        if self.cuda:
            torch.cuda.synchronize()
            return statistics.median(a.elapsed_time(b) / 1000 for a, b in pairwise(marks))
        return statistics.median(b - a for a, b in pairwise(marks))


class TakeTurns(L.Callback):
    """After each block of the engine's steps, a block of the other loop's; `rounds` has the median time of both."""

    def __init__(self, other: Iterator[Any], steps: int, marks: Marks) -> None:
        self.other, self.steps, self.marks = other, steps, marks
        self.rounds: list[tuple[float, float]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.marks.add()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The end of a step."""
        self.marks.add()
        if len(self.marks.marks) <= self.steps:
            return
        engine = self.marks.median()
        self.marks.add()
        for _ in range(self.steps):
            next(self.other)
            self.marks.add()
        self.rounds.append((engine, self.marks.median()))
        self.marks.add()


def compare(
    config: dict[str, Any], data: Data, cutout: int, steps: int, device: torch.device, clock: Callable[[], float]
) -> list[tuple[float, float]]:
    """Seconds of a step by the engine and by hand, in each round after the first."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(config, data, Path(folder))
        x, targets = (split := data.splits["train"].to(device)).between(0, len(split))
        other = hand_written(
            copy.deepcopy(engine.module.model).to(device),
            x,
            targets[""],
            engine.batches(device),
            config["optimizer"]["lr"],
            cutout,
        )
        turns = TakeTurns(other, steps, Marks(device, clock))
        engine.fit(turns)
    return turns.rounds[1:]


def choose_data(model: str, root: str | None) -> tuple[str, Data]:
    """What the model is trained on."""
    if model == "mlp":
        name, data = "digits", build_data({"data": {"_target_": "recipes.data.digits.Digits", "batch_size": BATCH[model]}})
    elif has_fashion_mnist(root):
        node = {"_target_": "recipes.data.torchvision.TorchvisionImages", "name": "fashion_mnist", "root": root}
        name, data = "fashion_mnist", build_data({"data": {**node, "batch_size": BATCH[model]}})
    else:
        name, data = "digits, 28 × 28", ResizedDigits(batch_size=BATCH[model])
    data.setup()
    return name, data


def main(words: Sequence[str] | None = None) -> None:
    """Run all comparisons and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--models", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--rounds", type=int, help="blocks of each side that count (mlp: 40, cnn: 150); one more goes first")
    parser.add_argument("--steps", type=int, help="steps of a block (mlp: 50, cnn: 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu | cuda")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time, which other programs lengthen little")
    parser.add_argument("--root", help="folder with fashion_mnist.npz or torchvision's files; without it, digits of 28 × 28")
    options = parser.parse_args(words)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{machine()}, {options.threads} threads"
    clock = time.process_time if options.cpu_time else time.perf_counter
    print(f"torch {torch.__version__}, lightning {L.__version__}, {name}")
    rows = []
    for model in options.models:
        data_name, data = choose_data(model, options.root)
        for techniques in (False, True):
            rounds, steps = options.rounds or ROUNDS[model], options.steps or STEPS["mlp" if device.type == "cuda" else model]
            config = configuration(model, techniques, options.device, options.threads, steps * (rounds + 1))
            set_up_process(config)
            blocks = compare(config, data, CUTOUT[model] if techniques else 0, steps, device, clock)
            engine, hand = (statistics.median(side) * 1000 for side in zip(*blocks, strict=True))
            ratios = [a / b for a, b in blocks]
            low, high = interval(ratios)
            row = [f"{model}, batch {BATCH[model]}", data_name, "five techniques" if techniques else "bare"]
            row.append(f"{rounds} × {steps}")
            rows.append([*row, f"{engine:.3f}", f"{hand:.3f}", f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}"])
    print_table(["model", "data", "", "rounds × steps", "engine ms", "by hand ms", "ratio", "95 % interval"], rows)


if __name__ == "__main__":
    main()
