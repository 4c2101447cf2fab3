"""Scikit-learn's copy of the Wisconsin breast cancer data."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

from recipes.data.base import Data
from recipes.data.split import Split


class BreastCancer(Data):
    """569 tumours, 30 features, two classes: malignant and benign; a fifth of them is the test split.

    Source: Street, Wolberg & Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993.
    """

    def load(self) -> tuple[Split, Split | None]:
        """Features and labels; there is no test split, so one is split off."""
        bunch = load_breast_cancer()
        self.class_names[""] = tuple(map(str, bunch.target_names))
        x, y = torch.from_numpy(bunch.data.astype(np.float32)), torch.from_numpy(bunch.target.astype(np.int64))
        return Split(x, {"": y}), None
