"""Time of each augmentation for a batch, side by side with kornia and with torchvision image by image: `python -m benchmarks.augmentation`.

All options of conf/augmentation are measured, with their default parameters (augmix without its divergence, as the others have it); the other
libraries do the same where they can, with the same chances, sizes and strengths, and draws for each image. Sides take turns, so that whatever else the machine does slows all. Kornia is measured where it is installed; on a GPU it is told
which of ours wait for the device.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import interval, machine, print_table
from plugins.base import Batch, Plugin, RecipeError, Setting, Task
from plugins.loss.by_task import LossByTask
from recipes.config.catalogue import Catalogue, Option
from recipes.engine.module import RecipeModule
from recipes.run.classes import instantiate

SAMPLES, CLASSES, SIDE = 256, 10, 32
SHAPES = ((3, SIDE, SIDE), (1, 64, 96), (96, 64), (64,))  # of a sample: images, or the first that an augmentation takes
LEAST = 0.05  # seconds that a turn takes at least
Side = Callable[[], object]


Make = Callable[[Any], Any]  # an augmentation from a library's module

SQUARE: dict[str, Any] = {"scale": (1 / 16, 1 / 16), "ratio": (1.0, 1.0)}
RECTANGLE: dict[str, Any] = {"scale": (0.02, 0.4), "ratio": (0.3, 1 / 0.3)}
MIXED: dict[str, Any] = {"p": 1.0, "data_keys": ["input", "class"]}
LIKE_OTHERS: Mapping[str, Mapping[str, Any]] = {"augmix": {"jsd": False}}  # nobody else makes a second and a third view
KORNIA: Mapping[str, Make] = {  # from kornia.augmentation
    "autoaugment": lambda k: k.auto.AutoAugment("cifar10"),
    "blur": lambda k: k.RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5),
    "color_jitter": lambda k: k.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0),
    "crop": lambda k: k.RandomCrop((SIDE, SIDE), padding=4),
    "cutmix": lambda k: k.RandomCutMixV2(**MIXED),
    "cutout": lambda k: k.RandomErasing(p=1.0, **SQUARE),
    "elastic": lambda k: k.RandomElasticTransform((33, 33), (4.0, 4.0), (2.0, 2.0), p=1.0),
    "gaussian_noise": lambda k: k.RandomGaussianNoise(std=0.05, p=1.0),
    "grayscale": lambda k: k.RandomGrayscale(p=0.2),
    "horizontal_flip": lambda k: k.RandomHorizontalFlip(p=0.5),
    "mixup": lambda k: k.RandomMixUpV2(**MIXED),
    "randaugment": lambda k: k.auto.RandAugment(2, 9),
    "random_erasing": lambda k: k.RandomErasing(p=0.5, **RECTANGLE),
    "resized_crop": lambda k: k.RandomResizedCrop((SIDE, SIDE)),
    "rotate": lambda k: k.RandomRotation(15.0, p=1.0),
    "solarize": lambda k: k.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=0.2),
    "translate": lambda k: k.RandomAffine(0.0, translate=(0.125, 0.125), p=1.0),
    "trivial_augment": lambda k: k.auto.TrivialAugment(),
    "vertical_flip": lambda k: k.RandomVerticalFlip(p=0.5),
    "zoom": lambda k: k.RandomAffine(0.0, scale=(0.8, 1.2), p=1.0),
}
TORCHVISION: Mapping[str, Make] = {  # from torchvision.transforms.v2
    "augmix": lambda t: t.AugMix(all_ops=False),
    "autoaugment": lambda t: t.AutoAugment(t.AutoAugmentPolicy.CIFAR10),
    "blur": lambda t: t.RandomApply([t.GaussianBlur(13, (0.1, 2.0))], 0.5),
    "color_jitter": lambda t: t.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "crop": lambda t: t.RandomCrop(SIDE, padding=4),
    "cutout": lambda t: t.RandomErasing(1.0, **SQUARE),
    "elastic": lambda t: t.ElasticTransform(34.0, 4.0),
    "gaussian_noise": lambda t: t.GaussianNoise(sigma=0.05),
    "grayscale": lambda t: t.RandomGrayscale(0.2),
    "horizontal_flip": lambda t: t.RandomHorizontalFlip(0.5),
    "randaugment": lambda t: t.RandAugment(2, 9),
    "random_erasing": lambda t: t.RandomErasing(0.5, **RECTANGLE),
    "resized_crop": lambda t: t.RandomResizedCrop(SIDE),
    "rotate": lambda t: t.RandomRotation(15.0, t.InterpolationMode.BILINEAR),
    "solarize": lambda t: t.RandomSolarize(0.5, 0.2),
    "translate": lambda t: t.RandomAffine(0.0, translate=(0.125, 0.125)),
    "trivial_augment": lambda t: t.TrivialAugmentWide(),
    "vertical_flip": lambda t: t.RandomVerticalFlip(0.5),
    "zoom": lambda t: t.RandomAffine(0.0, scale=(0.8, 1.2), interpolation=t.InterpolationMode.BILINEAR),
}


def ours(option: Option, device: torch.device) -> tuple[Side, tuple[int, ...]]:
    """The option's augmentation of a batch, as a step does it, and the shape of a sample."""
    for shape in SHAPES:
        x = torch.rand(SAMPLES, *shape)
        setting = Setting(shape, (Task("", "classification", CLASSES),), 0, lambda x=x: iter([x]))  # type: ignore[misc]
        module = RecipeModule(nn.Flatten(), LossByTask(), torch.optim.SGD)
        try:
            module.build(
                [instantiate({**option.node, **LIKE_OTHERS.get(option.name, {})}, Plugin)],
                setting,
                precision="32-true",
                devices=1,
            )
        except RecipeError as error:
            refusal = error
            continue
        module.to(device)
        labels, numbers = (torch.arange(SAMPLES, device=device) % n for n in (CLASSES, SAMPLES))
        batch = Batch(x.to(device), {"": labels}, {"": labels}, samples=numbers)

        def step(module: RecipeModule = module, batch: Batch = batch) -> Batch:
            module.draws.clock = (module.draws.clock[0] + 1, 0)
            for plugin in module.hooks["transform_batch"]:
                batch = plugin.transform_batch(batch, module)
            return batch

        return step, shape
    raise refusal


def kornias(make: Make, x: Tensor, labels: Tensor) -> Side:
    """Kornia's, of the whole batch; of images and labels where it mixes both."""
    augmentation = make(import_module("kornia.augmentation")).to(x.device)
    return (lambda: augmentation(x, labels)) if "Mix" in type(augmentation).__name__ else (lambda: augmentation(x))


def torchvisions(make: Make, x: Tensor) -> Side:
    """Torchvision's, of one image after the other, or all would share one draw."""
    augmentation = make(import_module("torchvision.transforms.v2"))
    return lambda: torch.stack([augmentation(image) for image in x])


def seconds(side: Side, device: torch.device, repeats: int = 1) -> float:
    """The mean time of some calls."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        side()
    _wait(device)
    return (time.perf_counter() - began) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waits(side: Side) -> bool:
    """Whether the CPU waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        side()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def measure(option: Option, device: torch.device, rounds: int) -> list[str]:
    """The row of the table."""
    own, shape = ours(option, device)
    sides = {"ours": own}
    x, labels = torch.rand(SAMPLES, *SHAPES[0], device=device), torch.arange(SAMPLES, device=device) % CLASSES
    if option.name in KORNIA and find_spec("kornia"):
        sides["kornia"] = kornias(KORNIA[option.name], x, labels)
    if option.name in TORCHVISION:
        sides["torchvision"] = torchvisions(TORCHVISION[option.name], x)
    repeats = {name: max(1, round(LEAST / sorted(seconds(side, device) for _ in range(3))[1])) for name, side in sides.items()}
    turns = [{name: seconds(side, device, repeats[name]) for name, side in sides.items()} for _ in range(rounds)]
    name = option.name if shape == SHAPES[0] else f"{option.name}, {' × '.join(map(str, shape))}"
    row = [name, f"{1000 * statistics.median(turn['ours'] for turn in turns):.2f}"]
    for other in ("kornia", "torchvision"):
        if other not in sides:
            row += ["", "", ""]
            continue
        ratios = [turn["ours"] / turn[other] for turn in turns]
        low, high = interval(ratios)
        row += [f"{1000 * statistics.median(turn[other] for turn in turns):.2f}"]
        row += [f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f}"]
    return [*row, ("yes" if waits(own) else "no") if device.type == "cuda" else ""]


def main(words: Sequence[str] | None = None) -> None:
    """Time all augmentations and print a table."""
    catalogue = Catalogue().groups["augmentation"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augmentation", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each that count; calls before them warm it up")
    parser.add_argument("--only", nargs="+", choices=sorted(catalogue), default=sorted(catalogue), help="options to measure")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu | cuda")
    options = parser.parse_args(words)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{machine()}, {options.threads} threads"
    size = " × ".join(map(str, (SAMPLES, *SHAPES[0])))
    version = import_module("kornia").__version__ if find_spec("kornia") else "not installed"
    print(f"batch of {size}, {options.rounds} rounds, torch {torch.__version__}, kornia {version}, {where}")
    rows = [measure(catalogue[name], device, options.rounds) for name in options.only]
    columns = ["", "ours, ms", "kornia, ms", "ratio", "95 % interval", "torchvision, ms", "ratio", "95 % interval"]
    print_table([*columns, "waits"], rows)


if __name__ == "__main__":
    main()
