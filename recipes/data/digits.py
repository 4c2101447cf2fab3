"""Scikit-learn's handwritten digits: real data that needs no download."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from recipes.data.base import Data
from recipes.data.split import Split


class Digits(Data):
    """1,797 images of handwritten digits, 1 × 8 × 8, ten classes; a fifth of them is the test split."""

    def load(self) -> tuple[Split, Split | None]:
        """Images in [0, 1] and their labels."""
        bunch = load_digits()
        x = torch.from_numpy((bunch.images / 16).astype(np.float32))[:, None]
        return Split(x, {"": torch.from_numpy(bunch.target.astype(np.int64))}), None
