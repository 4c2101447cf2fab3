"""Samples per second of an augmented Fashion-MNIST epoch, side by side with torchvision: `python -m benchmarks.data`.

Ours takes batches by index from one tensor and crops and flips them as a whole; torchvision's data set opens each image
with PIL and crops and flips it alone, in a DataLoader. They take turns, an epoch each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import interval, machine, print_table
from plugins.augmentation.crop import RandomCrop
from plugins.augmentation.horizontal_flip import HorizontalFlip
from plugins.base import Batch
from plugins.loss.by_task import LossByTask
from recipes.data.base import Data
from recipes.data.digits import Digits
from recipes.data.loaders import StepLoader
from recipes.data.source import Marked, Sample
from recipes.data.split import Split
from recipes.data.torchvision import TorchvisionImages
from recipes.engine.module import RecipeModule
from recipes.models.linear import LinearModel

BATCH = 128
TRAIN = 60_000  # images in Fashion-MNIST's training split


class ResizedDigits(Digits):
    """The digits as Fashion-MNIST has its images: bytes, 28 × 28."""

    def load(self) -> tuple[Split, Split | None]:
        """Images and their labels."""
        split, _ = super().load()
        x = torch.nn.functional.interpolate(split.x, (28, 28), mode="bilinear", align_corners=False)
        return Split(x.mul(255).round().byte(), split.targets), None


def has_fashion_mnist(root: str | None) -> bool:
    """Whether the data set lies in a folder."""
    return root is not None and any((Path(root) / place).exists() for place in ("fashion_mnist.npz", "FashionMNIST"))


def training_split(root: str | None, limit: int | None) -> tuple[str, Split]:
    """The images to go over: Fashion-MNIST's, or the digits as often as makes as many."""
    if has_fashion_mnist(root):
        name, (split, _) = "Fashion-MNIST", TorchvisionImages("fashion_mnist", root=str(root)).load()
    else:
        name, (split, _) = "digits of 28 × 28 pixels, repeated", ResizedDigits().load()
        split = split[torch.arange(TRAIN) % len(split)]
    return name, split[torch.arange(min(limit or TRAIN, len(split)))]


# ------------------------------------------------------------------ ours


class Steps(RecipeModule):
    """The engine's module where no Trainer counts the steps."""

    steps = 0

    @property
    def steps_done(self) -> int:
        """Steps done."""
        return self.steps

    def augmented(self, data: Sample | Marked) -> Batch:
        """The next step's batch, augmented."""
        batch = self.as_batch(data)
        self.draws.clock = (self.steps, 0)
        for plugin in self.hooks["transform_batch"]:
            batch = plugin.transform_batch(batch, self)
        self.steps += 1
        return batch


def ours(split: Split, device: torch.device) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Epochs of the engine's loader with its augmentations."""
    data = Data(batch_size=BATCH)
    data.splits = {name: split for name in ("train", "val", "test")}
    module = Steps(LinearModel(data.shape, 10), LossByTask(), torch.optim.SGD)
    module.build([RandomCrop(padding=4), HorizontalFlip(p=0.5)], data.setting(0), precision="32-true", devices=1)
    module.to(device)
    loader = StepLoader(split, BATCH, 0, position=lambda: module.steps)
    loader.device = device

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        for raw in loader:
            batch = module.augmented(raw)
            yield batch.x, batch.labels[""]
        if device.type == "cuda":
            torch.cuda.synchronize()

    return epoch


# ------------------------------------------------------------------ torchvision's


def write_idx(folder: Path, split: Split) -> None:
    """The files that torchvision's FashionMNIST reads, the test split being the same images once more."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = {"images-idx3": split.x[:, 0].numpy(), "labels-idx1": split.targets[""].numpy().astype(np.uint8)}
    for part in ("train", "t10k"):
        for kind, array in arrays.items():
            # bytes (8), as many dimensions, their sizes, then the values
            head = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())


def torchvisions(folder: Path, workers: int, device: torch.device) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """Epochs of torchvision's data set in a DataLoader, whose workers stay alive between them."""
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [transforms.RandomCrop(28, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    loader = DataLoader(
        datasets.FashionMNIST(folder, train=True, transform=transform),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return epoch


# ------------------------------------------------------------------ taking turns


def rate(epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> float:
    """Samples per second of an epoch."""
    began, samples = time.perf_counter(), 0
    for x, _ in epoch():
        samples += len(x)
    return samples / (time.perf_counter() - began)


def main(words: Sequence[str] | None = None) -> None:
    """Time all loaders and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each that count; one more goes before them")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader")
    parser.add_argument("--samples", type=int, help="images of an epoch; all of them when left out")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu | cuda")
    parser.add_argument("--root", help="folder with fashion_mnist.npz or torchvision's files; without it, digits of 28 × 28")
    options = parser.parse_args(words)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    name, split = training_split(options.root, options.samples)
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder), split)
        sides = {"batch by index": ours(split, device)}
        sides |= {f"DataLoader, {workers} workers": torchvisions(Path(folder), workers, device) for workers in options.workers}
        rates = [{side: rate(epoch) for side, epoch in sides.items()} for _ in range(options.rounds + 1)][1:]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{machine()}, {options.threads} threads"
    print(f"{len(split):,} images of {name}, batch {BATCH}, {options.rounds} rounds, torch {torch.__version__}, {where}")
    rows = []
    for side in sides:
        ratios = [turn["batch by index"] / turn[side] for turn in rates]
        low, high = interval(ratios)
        rows.append(
            [
                side,
                f"{statistics.median(turn[side] for turn in rates):,.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{low:.2f} to {high:.2f}",
            ]
        )
    print_table(["", "samples/s", "ours is faster by", "95 % interval"], rows)


if __name__ == "__main__":
    main()
