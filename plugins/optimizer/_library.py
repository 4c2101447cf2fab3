"""Optimizers of packages that may not be installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar

from plugins.base import OptimizerWrapper, Option, RecipeError, expect, expect_nonnegative
from plugins.identity import spelling


def expect_numbers(**values: float) -> None:
    """Accept numbers ≥ 0, by their names."""
    for name, value in values.items():
        expect_nonnegative(name, value)


def expect_betas(betas: Sequence[float], many: int = 2) -> None:
    """Accept as many numbers in [0, 1)."""
    right = len(betas) == many and all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas)
    expect(right, "betas", f"{many} numbers in [0, 1)", betas)


class OfLibrary(Option, OptimizerWrapper):
    """An optimizer that another package has, and which does all the work: parameter groups and state are its own.

    A subclass makes it in its constructor, of the package that it names, and is one layer of norms or whole matrices unless it says
    `on_shards = True`.
    """

    on_shards = False
    package: ClassVar[str]  # as it is imported
    extra: ClassVar[str]  # by which it is installed

    @classmethod
    def library(cls) -> Any:
        """The package.

        Raises:
            RecipeError: it is not there.
        """
        try:
            return import_module(cls.package)
        except ModuleNotFoundError:
            raise RecipeError(
                f'optimizer={spelling(cls)[1]} needs a package of its own: pip install "lightning-recipes[{cls.extra}]"'
            ) from None


class OfTimm(OfLibrary):
    """An optimizer of timm."""

    package, extra = "timm.optim", "timm"
