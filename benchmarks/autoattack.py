"""Accuracy of finished runs under AutoAttack, beside that under PGD: `python -m benchmarks.autoattack RUN`.

AutoAttack is an ensemble of four attacks without parameters to choose, of which a sample must withstand each: APGD by cross-entropy, targeted
APGD, targeted FAB and Square, which uses no gradient (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", ICML 2020). What a model hides from gradients alone is found by it. The same samples are attacked by PGD from random starts
(Madry et al., ICLR 2018). Both work on raw inputs, in which ε is meant; the layers that prepare them are part of the model.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine, print_table
from lightning_recipes import load
from plugins.adversarial._ascent import pgd, random_starts
from plugins.adversarial._robustness import RobustnessMeasured
from plugins.base import UNIT, RecipeError
from recipes.cli.exits import exit_with
from recipes.data.loaders import EvaluationLoader
from recipes.engine.loading import prepared
from recipes.run.predictor import Member

PACKAGE = 'benchmarks.autoattack needs a further package: pip install -e ".[attacks]"'
NORMS = {"linf": "Linf", "l2": "L2"}
FEWEST = 4  # classes that the loss of targeted APGD compares
TARGETS = 9  # classes that the targeted attacks of the standard version aim at, the most probable wrong ones
PER_STEP = 30  # steps of PGD across ε: of 0.01 at ε = 0.3


class Attacked(nn.Module):
    """A trained model as AutoAttack takes one: inputs of [0, 1] to logits.

    Args:
        member: a run.
        low: the smallest valid value of a raw input.
        high: the largest.
    """

    def __init__(self, member: Member, low: float, high: float) -> None:
        super().__init__()
        self.module, self.low, self.width = member.module, low, high - low
        (self.task,) = member.tasks

    def forward(self, x: Tensor) -> Tensor:
        """Logits (samples, classes)."""
        return self.module.outputs(self.low + self.width * x)[self.task.name]

    def unit(self, x: Tensor) -> Tensor:
        """Raw inputs in [0, 1]."""
        return ((x - self.low) / self.width).clamp(0, 1)

    def right(self, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
        """Which inputs of [0, 1] are classified right, truth values (samples,)."""
        with torch.no_grad():
            return torch.cat([self(part).argmax(1) == labels for part, labels in batches(batch_size, x, y)])


def batches(size: int, *tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    """Tensors in pieces of as many samples."""
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def samples_of(member: Member, number: int) -> tuple[Tensor, Tensor]:
    """The first samples of a run's test split: raw inputs, and labels.

    Raises:
        RecipeError: targets that are no classes, or too few of them; inputs that are no numbers in one array.
    """
    tasks = member.tasks
    if len(tasks) != 1 or tasks[0].kind != "classification" or tasks[0].shape or tasks[0].outputs < FEWEST:
        raise RecipeError(f"AutoAttack needs one target of at least {FEWEST} classes; {member.folder} has {member.described()}")
    member.setup_test(member.data)
    split = member.data.splits["test"]
    x, targets = next(iter(EvaluationLoader(split[torch.arange(min(number, len(split)))], number)))
    if not isinstance(x, Tensor) or not (x.is_floating_point() or x.dtype == torch.uint8):
        raise RecipeError(f"AutoAttack needs inputs to which something small can be added; {member.folder} has none")
    raw = prepared(x, False)
    assert isinstance(raw, Tensor)
    return raw, targets if isinstance(targets, Tensor) else targets[tasks[0].name]


def limits(given: Sequence[Any] | None, x: Tensor) -> tuple[float, float]:
    """The range of valid inputs, the same for all of them: what is given, or [0, 1] for inputs within it.

    Raises:
        RecipeError: AutoAttack cannot keep to it, or it is not known.
    """
    low, high = UNIT if given is None else given
    if not all(isinstance(end, (int, float)) and math.isfinite(end) for end in (low, high)) or low >= high:
        raise RecipeError(f"AutoAttack needs one range [lo, hi] for all inputs, got [{low}, {high}]: type --range LO HI")
    if not (low <= float(x.min()) and float(x.max()) <= high):
        raise RecipeError(
            f"the inputs reach from {float(x.min()):.4g} to {float(x.max()):.4g}, outside of the range [{low}, {high}]: type --range LO HI"
        )
    return low, high


def under_pgd(model: Attacked, x: Tensor, y: Tensor, options: argparse.Namespace, eps: float, norm: str) -> Tensor:
    """Which inputs of [0, 1] are classified right after PGD from each start, truth values (samples,)."""
    robust, first = model.right(x, y, options.batch_size), 0
    alpha = eps / PER_STEP if options.alpha is None else options.alpha / model.width
    found = []
    for part, labels in batches(options.batch_size, x, y):
        places = range(first, first := first + len(part))

        def loss(moved: Tensor, labels: Tensor = labels) -> Tensor:
            return nn.functional.cross_entropy(model(moved), labels, reduction="sum")

        for start in range(options.restarts):
            moved = pgd(part, loss, eps, alpha, options.steps, norm, UNIT, random_starts(part, eps, norm, places, start))
            robust[places] &= model.right(moved, labels, options.batch_size)
        found.append(robust[places])
    return torch.cat(found)


def under_autoattack(model: Attacked, x: Tensor, y: Tensor, options: argparse.Namespace, eps: float, norm: str) -> Tensor:
    """Which inputs of [0, 1] are classified right after the standard version of AutoAttack, truth values (samples,)."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm=NORMS[norm], eps=eps, seed=0, version="standard", device=x.device)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(TARGETS, model.task.outputs - 1)
    worst, _ = attack.run_standard_evaluation(x, y, batch_size=options.batch_size)
    return model.right(worst, y, options.batch_size)


def attacked(folder: str, options: argparse.Namespace, device: torch.device) -> list[str]:
    """The row of a run."""
    (member,) = load(folder, words=options.words).members
    of_run = next((plugin for plugin in member.plugins if isinstance(plugin, RobustnessMeasured)), None)
    eps, norm = options.eps, options.norm or (of_run.norm if of_run else "linf")
    if eps is None:
        if of_run is None:
            raise RecipeError(f"{folder} was trained without an attack, whose size the others would have: type --eps NUMBER")
        eps = of_run.evaluated_eps
    x, y = samples_of(member, options.samples)
    low, high = limits(options.range or (of_run.range if of_run else None), x)
    model = Attacked(member, low, high).to(device).eval()
    x, y = model.unit(x.to(device)), y.to(device)
    began, found = time.perf_counter(), [model.right(x, y, options.batch_size)]
    for attack in (under_pgd, under_autoattack):
        found.append(attack(model, x, y, options, eps / (high - low), norm))
    accuracies = [f"{float(right.float().mean()):.4f}" for right in found]
    return [folder, f"{norm} {eps:g}", f"{len(x):,}", *accuracies, f"{time.perf_counter() - began:.0f} s"]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoattack", description=(__doc__ or "").split(":")[0])
    parser.add_argument("runs", nargs="+", help="folders of finished runs", metavar="RUN")
    parser.add_argument(
        "--words", nargs="+", default=[], help="that say where the data lies, such as data.root=DIR", metavar="WORD"
    )
    parser.add_argument("--samples", type=int, default=1000, help="the first of the test split")
    parser.add_argument(
        "--eps", type=float, help="size of the perturbation in raw units; by default that of the run's evaluations"
    )
    parser.add_argument("--norm", choices=list(NORMS), help="by default that of the run, or linf")
    parser.add_argument(
        "--range", nargs=2, type=float, metavar=("LO", "HI"), help="of valid raw inputs; by default the run's, or 0 1"
    )
    parser.add_argument("--steps", type=int, default=40, help="of PGD")
    parser.add_argument("--alpha", type=float, help=f"length of a step of PGD in raw units; by default eps/{PER_STEP}")
    parser.add_argument("--restarts", type=int, default=1, help="random starts of PGD")
    parser.add_argument("--batch-size", type=int, default=250, help="samples that are attacked together")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Attack each run, and print a table."""
    options = parse(words)
    try:
        import pyautoattack  # noqa: F401
    except ImportError:
        raise RecipeError(PACKAGE) from None
    device = torch.device(options.device)
    rows = [attacked(folder, options, device) for folder in options.runs]
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{machine()}, {torch.get_num_threads()} threads"
    print(f"pyautoattack {version('pyautoattack')}, standard version; torch {torch.__version__}, {place}")
    pgd_of = f"pgd, {options.steps} × {options.restarts}"
    print_table(["run", "attack", "samples", "clean", pgd_of, "autoattack", "time"], rows)
    return 0


if __name__ == "__main__":
    exit_with(main)
