"""Dropout that is on while all else is in evaluation mode."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from plugins.activations import tensors
from plugins.inputs import Inputs, blank, each
from plugins.sites import DROPOUTS, evaluation_mode, takes_tokens

TRIED = 8  # passes at most, and samples in each, that must not all be equal


@contextmanager
def dropping(model: nn.Module, frozen: Collection[int] = ()) -> Iterator[None]:
    """Evaluation mode, but for dropout; layers whose ids are in `frozen` are left out."""
    with evaluation_mode(model):
        layers = [module for module in model.modules() if drops(module) and id(module) not in frozen]
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # which leaves dropout layers out
        try:
            for layer in layers:
                layer.training = True
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for layer in layers:
                layer.training = False


def passes_are_equal(model: nn.Module, shape: Sequence[int], frozen: Collection[int], seed: int) -> bool:
    """Whether the dropout layers of a model have no say in what it returns, for random samples of a shape."""
    generator = torch.Generator().manual_seed(seed)
    place = next((weight for weight in model.parameters() if weight.is_floating_point()), torch.zeros(()))
    x: Inputs
    if isinstance(shape, Mapping):
        # tokens and masks as they are, of which each has a say; numbers that are 0 have none
        x = each(blank(shape, TRIED, "cpu", place.dtype), lambda value: _drawn(value, generator))
    elif takes_tokens(model):
        most = min(part.num_embeddings for part in model.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag)))
        x = torch.randint(most, (TRIED, *shape), generator=generator)
    else:
        x = torch.randn(TRIED, *shape, generator=generator).to(place.dtype)
    x = each(x, lambda x: x.to(place.device))
    with torch.random.fork_rng(devices=[]), torch.no_grad(), dropping(model, frozen), _often(model):
        torch.manual_seed(seed)
        try:
            first = [*tensors(model(x))]
            for _ in range(TRIED - 1):
                if any(not torch.equal(a, b) for a, b in zip(first, tensors(model(x)), strict=True)):
                    return False
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False  # it does not take such inputs: nothing is known
    return True


def _drawn(value: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(value.shape, generator=generator).to(value.dtype) if value.is_floating_point() else value


@contextmanager
def _often(model: nn.Module) -> Iterator[None]:
    """Let each layer that drops anything drop half: what it has a say in shows at once."""
    names = [(module, "p" if isinstance(module, DROPOUTS) else "dropout") for module in model.modules() if drops(module)]
    kept = [(module, name, getattr(module, name)) for module, name in names]
    try:
        for module, name, _ in kept:
            setattr(module, name, 0.5)
        yield
    finally:
        for module, name, p in kept:
            setattr(module, name, p)


def drops(module: nn.Module) -> float | None:
    """The probability with which a module drops in training mode; None for one that is no dropout and has none inside.

    Of attention and of recurrent layers training mode switches on nothing else.
    """
    if isinstance(module, DROPOUTS):
        return float(module.p)  # type: ignore[arg-type]
    if isinstance(module, nn.MultiheadAttention) and module.dropout:
        return float(module.dropout)
    if isinstance(module, nn.RNNBase) and module.dropout and module.num_layers > 1:
        return float(module.dropout)
    return None
