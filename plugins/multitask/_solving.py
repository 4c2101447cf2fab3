"""What techniques share that find the weights of a few gradients by solving a problem: in double precision, on the CPU, of inner products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Array = NDArray[np.float64]


def solved(products: Float[Tensor, "tasks tasks"], solve: Callable[[Array], Array]) -> Float[Tensor, " tasks"]:
    """The weights that `solve` finds; inner products that are not finite give NaN, so that no weights that look good hide them."""
    given = products.cpu().double()
    if not given.isfinite().all():  # an overflow, or a training that diverges
        return torch.full_like(products[0], torch.nan)
    return torch.from_numpy(solve(given.numpy())).to(products)


def norms(products: Array) -> Array:
    """‖gᵢ‖, (tasks,)."""
    return np.sqrt(products.diagonal().clip(min=0))


def of_units(products: Array) -> tuple[Array, Array]:
    """The inner products of the gradients divided by their norms, and these; a gradient that is 0 is divided by 1."""
    scale = norms(products)
    scale = np.where(scale > 0, scale, 1.0)
    return products / np.outer(scale, scale), scale


def root(products: Array) -> Array:
    """A with AᵀA = G: columns that have these inner products."""
    values, vectors = np.linalg.eigh(products)
    return np.sqrt(values.clip(min=0))[:, None] * vectors.T


def shortest(products: Array) -> Array:
    """The weights w ≥ 0, Σ wᵢ = 1, of the shortest vector Σ wᵢ gᵢ: min wᵀGw.

    u that minimizes ‖A u‖² + (Σ uᵢ − 1)² over u ≥ 0 points to it: of u = t w with Σ wᵢ = 1 the best t leaves ‖A w‖² / (1 + ‖A w‖²), which grows
    with ‖A w‖. It is solved for unit gradients, so that some may be shorter than others by orders of magnitude.
    """
    from scipy.optimize import nnls

    length = norms(products)
    if (zero := length == 0).any():
        return zero / zero.sum()
    unit, scale = of_units(products)
    rows = np.vstack([root(unit), length.min() / scale])
    found = nnls(rows, np.eye(len(rows))[-1])[0] / scale
    weights: Array = found / found.sum()
    return weights
