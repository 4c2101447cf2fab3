"""Stochastic depth (Huang et al., 2016), or DropPath."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from plugins.base import Plugin, Stage, declare
from plugins.replacing import replace_module
from plugins.residual import Branches, residual_branches
from plugins.sites import attach, expect_training

if TYPE_CHECKING:
    from jaxtyping import Float


def stochastic_depth(x: Float[Tensor, "samples ..."], p: float) -> Float[Tensor, "samples ..."]:
    """Zero each sample with probability p and divide the others by 1 − p. Shape kept."""
    if p == 0:
        return x
    kept = torch.empty(len(x), *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    return x * (kept.div_(1 - p) if p < 1 else kept)


def rates(p: float, branches: int, mode: str = "linear") -> list[float]:
    """The probability for each branch: p · l / (L − 1) for branch l = 0 … L − 1 (`linear`), or p for all."""
    if mode == "uniform" or branches == 1:
        return [p] * branches
    return [p * depth / (branches - 1) for depth in range(branches)]


class StochasticDepthLayer(nn.Module):
    """The layer that :class:`StochasticDepth` puts at the end of a residual branch."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop the branch for some samples in training."""
        return stochastic_depth(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p:g}"


class StochasticDepth(Plugin):
    """Drop residual branches at random during training, so that the net that is trained has a depth of its own for each sample.

    h ← h + b / (1 − p_l) · f_l(h) with b ~ Bernoulli(1 − p_l) for each sample in training, and h ← h + f_l(h) at test. With `linear`
    p_l grows with depth from 0 at the first branch to p at the last; with `uniform` it is p at all of them.

    Branches are found by the additions of a blank pass, be they written as `x + f(x)`, `out += identity` or by functions. A layer of
    torchvision or timm that drops a branch already gets p_l in place of its own.

    Shapes:
        what a branch returns: (samples, ...).

    Raises:
        RecipeError: no residual branch in the model, or one that ends with no module of its own.

    Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016; lecture B.
    """

    stage = Stage.LAYERS

    p: float = declare.share("probability that a branch is dropped", default=0.1, off=0.0)
    mode: str = declare.choice(
        "linear", "uniform", default="linear", help="linear: grows with depth from 0 to p | uniform: p for each branch"
    )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put a layer at the end of each residual branch, or in the place of the model's own."""
        branches = residual_branches(model, self.setting.shape, self.state_key)
        expect_training(self.state_key, model, [branch.module for branch in branches.found])
        for branch, p in zip(branches.found, rates(self.p, len(branches.found), self.mode), strict=True):
            if branch.own:
                replace_module(model, branch.module, StochasticDepthLayer(p).train(branch.module.training))
            else:
                attach(branch.module, "stochastic_depth", StochasticDepthLayer(p))
        self.remarks = list(remarks(branches))
        return model


def remarks(branches: Branches) -> Iterator[str]:
    """What was found, and what could not be decided."""
    own = sum(branch.own for branch in branches.found)
    yield f"residual branches found: {len(branches.found)}" + (
        f", {own} of them with a layer that dropped them already" if own else ""
    )
    if names := branches.undecided:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"additions whose shortcut cannot be told are left alone: in {', '.join(names[:3])}{more}"
