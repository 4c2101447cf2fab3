"""Class-balanced sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import RecipeError
from plugins.sampling._drawing import ByClass

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


def balanced_order(
    labels: Int[Tensor, " samples"], generator: torch.Generator, known: Bool[Tensor, " samples"] | None = None
) -> Int[Tensor, " samples"]:
    """As many indices as labels, in rounds: in each every class has one sample, in an order drawn for the round.

    The samples of a class follow each other in a random order that is drawn anew whenever it is used up. So in any stretch from the
    front each class stands equally often, up to one, and each of its samples too.

    Args:
        labels: of all samples.
        generator: draws.
        known: which samples have a class; the others are left out. None: all.
    """
    samples = len(labels)
    places = torch.arange(samples) if known is None else known.nonzero().flatten()
    classes, inverse, counts = labels[places].unique(return_inverse=True, return_counts=True)
    rounds = -(-samples // max(1, len(classes)))
    drawn = torch.empty(rounds, len(classes), dtype=torch.long)
    for number, members in enumerate(inverse.argsort(stable=True).split(counts.tolist())):
        times = -(-rounds // len(members))
        drawn[:, number] = torch.cat([members[torch.randperm(len(members), generator=generator)] for _ in range(times)])[
            :rounds
        ]
    turns = torch.rand(rounds, len(classes), generator=generator, dtype=torch.float64).argsort(dim=1)
    return places[drawn.gather(1, turns).flatten()[:samples]]


class BalancedSampling(ByClass):
    """Train on each class as often as on every other.

    An epoch has as many samples as the training split, n, and each of the k classes that are in it gives n/k of them, one less or more at
    most: a sample of class c is expected n/(k·n_c) times, those of rare classes several times, those of frequent ones in some epochs only.
    Batches have classes as equal; samples whose label the loss ignores are left out. Metrics in training count what is drawn; validation and
    test keep the classes' own shares.

    Raises:
        RecipeError: no training sample has a class.
        Refusal: no target with classes, several of which none is named, or a name that none of them has.

    Source: He & Garcia, "Learning from imbalanced data", IEEE TKDE 2009, section 3.1.1 (random over- and undersampling).
    """

    draws = "each class as often"

    def order(self, labels: Mapping[str, Tensor], epoch: int, generator: torch.Generator) -> Tensor:
        """Each class as often."""
        of_samples = labels[self.classes(self.setting)].flatten().long()
        known = self.known(of_samples, self.setting)
        if not known.any():
            raise RecipeError(f"{self.state_key} draws {self.draws}, and no training sample has one: leave it out")
        return balanced_order(of_samples, generator, known)
