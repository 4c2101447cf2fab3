"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100: from an npz file where there is one, from torchvision's download otherwise."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from plugins.base import RecipeError, expect_choice
from recipes.config.errors import first_line
from recipes.data.arrays import as_images, as_labels, check_inputs, same_length
from recipes.data.base import Data
from recipes.data.npz import read_arrays
from recipes.data.own import one_at_a_time
from recipes.data.split import Split

CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


BROKEN = (
    RuntimeError,
    OSError,
    ValueError,
    AssertionError,
    KeyError,
    IndexError,
)  # what a damaged file makes torchvision raise


class TorchvisionImages(Data):
    """An image data set with a test split of its own.

    `ROOT/NAME.npz` with x_train, y_train, x_test, y_test is used where it lies; else torchvision's files below ROOT.

    Args:
        name: mnist | fashion_mnist | cifar10 | cifar100 (its hundred fine classes).
        root: folder of the files.
        download: whether torchvision may download what is missing.
    """

    def __init__(self, name: str, root: str = "data", download: bool = False, **split: Any) -> None:
        super().__init__(**split)
        expect_choice("data.name", name, list(CLASSES))
        self.name, self.root, self.download = name, Path(root), download

    def load(self) -> tuple[Split, Split | None]:
        """Bytes (samples, channels, height, width) and labels."""
        path = self.root / f"{self.name}.npz"
        arrays = read_arrays(path, ["x_train", "y_train", "x_test", "y_test"]) if path.is_file() else self._torchvision(path)
        splits = []
        for part in ("train", "test"):
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
            same_length([(f"x_{part}", x), (f"y_{part}", y)], str(path))
            check_inputs(x, f"{path}: x_{part}")
            splits.append(Split(as_images(x, f"{path}: x_{part}"), {"": as_labels(y, f"{path}: y_{part}")}))
        return splits[0], splits[1]

    def _torchvision(self, path: Path) -> dict[str, np.ndarray]:
        import torchvision

        dataset = getattr(torchvision.datasets, CLASSES[self.name])
        try:
            with one_at_a_time("downloads") if self.download else nullcontext(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                train, test = (dataset(self.root, train=train, download=self.download) for train in (True, False))
        except RecipeError:
            raise
        except BROKEN as error:
            if broken := broken_file(self.root / CLASSES[self.name] / "raw"):
                raise RecipeError(
                    f"{broken} is damaged, as of a download that was broken off: remove it, and type data.download=true to get it again"
                ) from None
            if self.download:
                raise RecipeError(f"{self.name} could not be downloaded to {self.root}: {first_line(error)}") from None
            raise RecipeError(
                f"no {self.name} data in {self.root.absolute()}: looked for {path.name} and torchvision's files; "
                f"type data.download=true to download it, or data.root=FOLDER where it lies"
            ) from None
        return {
            "x_train": np.asarray(train.data),
            "y_train": np.asarray(train.targets),
            "x_test": np.asarray(test.data),
            "y_test": np.asarray(test.targets),
        }


def broken_file(folder: Path) -> Path | None:
    """The first of MNIST's files in a folder that cannot be read to its end."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    for file in sorted(folder.glob("*-ubyte")):
        try:
            read_sn3_pascalvincent_tensor(str(file))
        except BROKEN:
            return file
    return None
