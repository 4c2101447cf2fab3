"""Training on a bootstrap sample."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from plugins.base import Plugin, Stage, derive_seed


class Bootstrap(Plugin):
    """Train on as many samples as there are, drawn with replacement once: models of several seeds can be bagged.

    About 1 − 1/e of the samples are among them. Each epoch takes them in another order.

    Source: Breiman, "Bagging Predictors", Machine Learning 1996.
    """

    stage = Stage.SAMPLING

    def order(self, labels: Mapping[str, Tensor], epoch: int, generator: torch.Generator) -> Tensor:
        """The same samples in each epoch."""
        count = len(next(iter(labels.values())))
        once = torch.Generator().manual_seed(derive_seed(self.setting.seed, self.option))
        drawn = torch.randint(count, (count,), generator=once)
        return drawn[torch.randperm(count, generator=generator)]
