"""TensorBoard."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from plugins.base import RecipeError
from recipes.engine.logger import RunLogger
from recipes.engine.metrics import Histogram
from recipes.run.loggers.csv_files import histograms_until, numbers_until


class TensorBoardRunLogger(TensorBoardLogger, RunLogger):
    """Event files in `tensorboard/` of the run's folder."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._folder = folder
        try:
            super().__init__(folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError:
            raise RecipeError("logger=tensorboard needs the package tensorboard: pip install tensorboard") from None

    @rank_zero_only
    def log_histograms(self, histograms: Mapping[str, Histogram], step: int) -> None:
        """Histograms of gradients, activations and the like."""
        for name, histogram in histograms.items():
            if (numbers := histogram.read()) is not None:
                self._log_histogram(name, numbers, step)

    def _log_histogram(self, name: str, numbers: tuple[float, float, Sequence[int]], step: int) -> None:
        low, high, counts = numbers
        edges = np.linspace(low, high, len(counts) + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        moments = {"sum": float(centres @ counts), "sum_squares": float(centres**2 @ counts)}
        self.experiment.add_histogram_raw(
            name,
            min=low,
            max=high,
            num=sum(counts),
            **moments,
            bucket_limits=edges[1:].tolist(),
            bucket_counts=list(counts),
            global_step=step,
        )

    @rank_zero_only
    def rewind(self, step: int, logged: Collection[str] | None = None) -> None:
        """Have TensorBoard forget the step and what is behind it, and log again what the step keeps."""
        self.experiment.close()
        self.experiment.purge_step = step  # which the next file begins with
        for at, numbers in numbers_until(self._folder, step, logged):
            if at == step:
                self.log_metrics(numbers, at)
        for at, name, histogram in histograms_until(self._folder, step):
            if at == step:
                self._log_histogram(name, histogram, at)
