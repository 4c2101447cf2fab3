"""How far the gradient of a minibatch is from that of all samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plugins.base import Batch, Module, Panel, RecipeError, declare
from plugins.diagnostics._gradients import TakesGradients, loss_of, piece_of, trained
from plugins.diagnostics._layers import layer_of
from plugins.diagnostics._looks import processes, summed


class Spread:
    """Mean and squared deviations of vectors that come one by one (Welford, 1962).

    Attributes:
        count: of the vectors.
        mean: of each of their tensors.
        squares: Σ ‖g − mean‖² of each of their tensors, (tensors,).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: list[Tensor] = []
        self.squares = torch.zeros(())

    def add(self, vector: Sequence[Tensor]) -> None:
        """Take in one more."""
        if not self.count:
            self.mean = [torch.zeros_like(value) for value in vector]
            self.squares = vector[0].new_zeros(len(vector))
        self.count += 1
        apart = [value - mean for value, mean in zip(vector, self.mean, strict=True)]
        self.mean = [mean + each / self.count for mean, each in zip(self.mean, apart, strict=True)]
        further = [value - mean for value, mean in zip(vector, self.mean, strict=True)]
        self.squares = self.squares + torch.stack([(a * b).sum() for a, b in zip(apart, further, strict=True)])

    def over_processes(self) -> None:
        """Take in those of all other processes."""
        if processes() == 1:
            return
        own, count = self.mean, self.count
        self.count = round(float(summed(self.squares.new_tensor(float(count)))))
        together = summed(torch.cat([mean.flatten() * count for mean in own])) / self.count
        self.mean = [each.view_as(mean) for each, mean in zip(together.split([mean.numel() for mean in own]), own, strict=True)]
        apart = torch.stack([(a - b).square().sum() for a, b in zip(own, self.mean, strict=True)])
        self.squares = summed(self.squares + count * apart)


def standard_errors(spread: Spread, size: float, samples: int) -> Tensor:
    """σ/√n of the mean over n samples, as a norm over the numbers of each tensor, (tensors,).

    The gradients of pieces of m samples vary by σ²/m: σ² is estimated by m · Σ ‖g_k − ḡ‖² / (K − 1) over K pieces.

    Args:
        spread: of the gradients of the pieces.
        size: m, samples of a piece.
        samples: n, of the whole minibatch.
    """
    return (size * spread.squares / (spread.count - 1) / samples).sqrt()


def noise_scale(error: Tensor, norm: Tensor, samples: int) -> Tensor:
    """tr(Σ) / ‖G‖², the simple noise scale in samples: tr(Σ) = n · error², ‖G‖² = norm² − error²; NaN where the noise hides the gradient."""
    signal = norm.square() - error.square()
    return (samples * error.square() / signal).where(signal > 0, torch.nan)


class GradientStandardError(TakesGradients):
    """Log how far the gradient of a minibatch is from that of all samples: its standard error σ/√n.

    The minibatch is cut into `pieces`, on each process and in each part of a step, whose gradients tell the variance σ² of the gradient of
    a sample: σ/√n is the norm of the standard error over all parameters, and over those of each layer. Beside it the norm of the gradient, and
    σ²/‖G‖², the simple noise scale: the samples from which on a larger minibatch is of little use. The gradient is that of the loss
    without penalties, at the weights that the step begins with, in full precision. Costs a forward and a backward pass over the minibatch at
    each look. With batch norm each piece is normalized by itself, so what is told is the noise of minibatches of the size of a piece.

    Raises:
        RecipeError: a step of one sample; pieces of one sample, of which batch norm has no statistics.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 8.1.3; lecture A. McCandlish et al., "An Empirical Model of Large-Batch
    Training", 2018.
    """

    pieces: int = declare.count("pieces of the minibatch whose gradients are compared", default=4, least=2)
    every_n_steps: int = declare.count("steps between two looks, the first at the first step", default=500)

    def look(self, module: Module, batches: Sequence[Batch]) -> None:
        """Take the gradients of all pieces, and record what they tell."""
        parameters, spread, used = trained(module.model), Spread(), 0
        samples = sum(map(len, batches)) * processes()
        with self.aside(module):
            for batch in batches:
                number = min(self.pieces, len(batch))
                size = len(batch) // number
                # without weights the step's loss is divided by its samples, not by what makes up for how often they are drawn
                share = size / samples if batch.correction is not None and not batch.weight else None
                for start in range(0, number * size, size):
                    loss = self._loss_of(module, piece_of(batch, start, start + size), len(batch), share)
                    found = torch.autograd.grad(loss, [*parameters.values()], allow_unused=True)
                    filled = zip(found, parameters.values(), strict=True)
                    spread.add([torch.zeros_like(p, dtype=torch.float32) if g is None else g.float() for g, p in filled])
                used += number * size
        if samples < 2:
            raise RecipeError(
                f"{self.state_key} compares the gradients of samples, and a step has one: type data.batch_size=2, or more"
            )
        of_piece = used / spread.count
        spread.over_processes()
        errors = standard_errors(spread, of_piece, samples)
        layers: dict[str, list[int]] = {}
        for at, name in enumerate(parameters):
            layers.setdefault(layer_of(name), []).append(at)
        for layer, places in layers.items():
            self.record(module, f"{layer}_error", errors[places].norm(), at_once=True)
        norm = torch.stack([mean.norm() for mean in spread.mean]).norm()
        for name, value in {"error": errors.norm(), "norm": norm, "scale": noise_scale(errors.norm(), norm, samples)}.items():
            self.record(module, name, value, at_once=True)

    def _loss_of(self, module: Module, piece: Batch, samples: int, share: float | None) -> Tensor:
        try:
            return loss_of(module, piece, share)
        except ValueError as error:
            if len(piece) > 1:
                raise
            fewer = f"{self.group}.{self.option}.pieces={samples // 2} or " if samples >= 4 else ""
            raise RecipeError(
                f"{self.state_key} cuts {samples} samples into pieces of one, which the model does not take ({str(error).strip()}): "
                f"type {fewer}a larger data.batch_size, at least {2 * self.pieces} for each part and process"
            ) from error

    def drawing(self) -> Sequence[Panel]:
        """Errors, the norm and the noise scale over the steps."""
        return [Panel("standard error", "error"), Panel("norm of the gradient", "norm"), Panel("noise scale, samples", "scale")]
