"""The first samples of data, and what a loss makes of them."""

from __future__ import annotations

from typing import Any

import torch

from recipes.engine.module import RecipeModule


def expect_loss(module: RecipeModule, data: Any) -> None:
    """Refuse, as the first batch would, a loss that means nothing for the data."""
    x, targets = first_samples(data, 4)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        module.losses(module.outputs(x), targets)


def first_samples(data: Any, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The first training samples as a model sees them, bytes as numbers in [0, 1], and their targets."""
    x, targets = data.splits["train"].between(0, count)
    return (x.float() / 255 if x.dtype == torch.uint8 else x), targets
