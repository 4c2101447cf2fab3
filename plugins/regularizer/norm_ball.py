"""Weights within a ball: regularization as a constraint (max-norm of Srebro & Shraibman, 2005, among others)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from plugins.base import Module, Plugin, Refusal, Selection, Stage, declare
from plugins.parameters import by_unit, named_parameters
from plugins.regularizer._norms import soft_threshold
from plugins.shards import kept_like, whole

if TYPE_CHECKING:
    from jaxtyping import Float

UNBOUND = {
    "optimizer/schedule_free": "an average of others than those that are projected: take another optimizer",
    "wrapper/lookahead": "slow ones that begin at weights before any were projected: leave wrapper=lookahead out",
}


def onto_ball(rows: Float[Tensor, "balls numbers"], k: float, p: int) -> Float[Tensor, "balls numbers"]:
    """For each row w the nearest v, in the Euclidean sense, with ‖v‖_p ≤ k. Shape kept.

    For p = 2 that is w · min(1, k/‖w‖₂); for p = 1 sign(w) · max(0, |w| − τ), with the τ ≥ 0 at which ‖v‖₁ = k, found by sorting (Duchi et
    al., 2008).
    """
    if p == 2:
        return rows * (k / rows.norm(dim=1, keepdim=True)).clamp_max(1)
    largest = rows.abs().sort(1, descending=True).values
    over = largest.cumsum(1) - k
    counts = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    kept = (largest * counts > over).sum(1, keepdim=True).clamp_min(1)  # numbers that stay above 0
    return soft_threshold(rows, (over.gather(1, kept - 1) / kept).clamp_min(0))


class NormBall(Plugin):
    """Bound the norm of the weights, in place of a penalty on it.

    min J(w) subject to Ω(w) ≤ k: after each step weights outside of the ball move to the nearest point within, and others stay as they are.
    Ω is the p-norm of each weight tensor (`layer`), of the weights that lead to each unit (`row`; with p = 2 this is max-norm), or of all
    weights together that are trained (`all`); biases and norm layers are free. p = 1 gives exact zeros. To each penalty λ · Ω belongs a k with
    the same minimum.

    Raises:
        Refusal: optimizer=schedule_free and wrapper=lookahead, which are evaluated at other weights than those of their steps;
            regularizer=spectral_norm and normalization=weight_standardization, for which weights have no scale.

    Source: Goodfellow et al., Deep Learning, 7.2; Srivastava et al., "Dropout", JMLR 2014 (max-norm); Duchi et al., "Efficient Projections onto
    the ℓ1-Ball", ICML 2008; lecture A.
    """

    stage = Stage.PROJECTION
    on_shards = True
    refuses = {
        "regularizer/spectral_norm": "it divides weights by their largest singular value, so that a bound on what is trained bounds "
        "nothing; leave one of the two out",
        "normalization/weight_standardization": "it takes weights of any scale for the same, so that a bound on what is trained bounds "
        "nothing; leave one of the two out",
    }

    k: float = declare.number("radius of the ball", default=3.0, above=0, infinite=True, also=".inf for no bound", off=math.inf)
    p: int = declare.count("of the norm (Σ|w|^p)^(1/p)", default=2, least=1, most=2)
    scope: str = declare.choice(
        "layer",
        "row",
        "all",
        default="layer",
        help="layer: a ball for each weight tensor | row: for the weights that lead to each unit | all: for all weights together",
    )

    def check(self, selection: Selection) -> None:
        """Refuse a bound that the evaluated weights would not keep."""
        for name, reason in UNBOUND.items():
            if selection.has(name):
                typed = name.replace("/", "=")
                raise Refusal(
                    f"regularizer/norm_ball cannot bound the weights of {typed}, which evaluates {reason}, or +regularizer=l2"
                )

    @torch.no_grad()
    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Project; the largest norm that a ball had before is logged."""
        named = [each for each in named_parameters(module.model) if each.kind == "weight" and each.parameter.requires_grad]
        if not named:
            return
        weights = [whole(each.parameter).clone() for each in named]
        if self.scope == "all":
            balls = [torch.cat([weight.flatten() for weight in weights]).unsqueeze(0)]
        elif self.scope == "layer":
            balls = [weight.reshape(1, -1) for weight in weights]
        else:
            views = [by_unit(weight, each.module) for weight, each in zip(weights, named, strict=True)]
            balls = [view.flatten(0, 1).flatten(1) for view in views]
        self.record(module, "largest_norm", torch.stack([ball.norm(self.p, dim=1).amax() for ball in balls]).amax())
        found = [onto_ball(ball, self.k, self.p) for ball in balls]
        if self.scope == "all":
            found = list(found[0].squeeze(0).split([weight.numel() for weight in weights]))
        elif self.scope == "row":
            for view, projected in zip(views, found, strict=True):
                view.copy_(projected.view(view.shape))
            found = weights
        for each, projected in zip(named, found, strict=True):
            each.parameter.copy_(kept_like(projected.view(each.parameter.shape), each.parameter))
