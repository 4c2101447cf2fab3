"""Swap noise on the features of a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.augmentation._table import columns
from plugins.base import Batch, Module, Plugin, Setting, Stage, declare

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def swap(
    x: Float[Tensor, " samples *shape"],
    rows: Int[Tensor, "samples columns"],
    swapped: Bool[Tensor, "samples columns"],
    column: Int[Tensor, " features"],
) -> Float[Tensor, " samples *shape"]:
    """Each column that is swapped has the value of the row drawn for it; `column` is the number of the column of each feature."""
    own = torch.arange(len(x), device=x.device).unsqueeze(1)
    source = torch.where(swapped, rows, own).index_select(1, column)
    return x.flatten(1).gather(0, source).view_as(x)


class SwapNoise(Plugin):
    """Put values of other rows of the batch in place of some, column by column.

    x'[i, j] = x[r, j] with probability p, r ~ U over the rows of the batch, for each row i and column j. The features of a column of categories
    are swapped together: neighbours that are 0 or 1 in all training rows, and of which exactly one is 1 in each. A feature is a column of a
    table, or one of the numbers of another sample. Targets stay.

    Raises:
        Refusal: inputs by name, class maps.

    Source: Jahrer, "1st place with representation learning", Porto Seguro's Safe Driver Prediction, Kaggle 2017.
    """

    stage = Stage.NOISE
    on_named_inputs = False

    p: float = declare.share("probability that a value is replaced", default=0.1, off=0.0)

    def prepare(self, setting: Setting) -> None:
        """Learn which features are the categories of one column; where a finished run is loaded nothing is trained."""
        super().prepare(setting)
        pieces, features = setting.training_inputs, torch.Size(setting.shape).numel()
        self._column = torch.arange(features) if pieces is None else columns(pieces).cpu()
        self._number = int(self._column[-1]) + 1

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Draw which values are replaced, and from which rows."""
        generator, device, size = module.generator(self.option), batch.x.device, (len(batch), self._number)
        self._column = self._column.to(device, non_blocking=True)
        swapped = torch.rand(size, device=device, generator=generator, dtype=torch.float32) < self.p
        rows = torch.randint(len(batch), size, device=device, generator=generator)
        return replace(batch, x=swap(batch.x, rows, swapped, self._column))
