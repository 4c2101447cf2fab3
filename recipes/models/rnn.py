"""A recurrent network for sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from plugins.base import expect, expect_choice, expect_count
from plugins.inputs import Entry
from recipes.models.named import expect_no_vocabulary, find_places, vocabulary_of

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}


class Layer(nn.Module):
    """One layer of cells: hₜ = cell(xₜ, hₜ₋₁), beside it where it is bidirectional one that reads from the last step to the first.

    Args:
        cell: lstm | gru | tanh.
        features: of a step.
        hidden: units in a direction.
        bidirectional: whether there are two.
    """

    def __init__(self, cell: str, features: int, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.ahead = CELLS[cell](features, hidden, batch_first=True)
        self.back = CELLS[cell](features, hidden, batch_first=True) if bidirectional else None

    def forward(self, x: Tensor, turned: Tensor) -> Tensor:
        """States (samples, steps, units) of steps (samples, steps, features); `turned` is the index that reverses the valid steps."""
        with _single_precision_on_cpu(x), _differentiable(self.training):
            x = x.to(next(self.ahead.parameters()).dtype)  # autocast makes it smaller again
            ahead = self.ahead(x)[0]
            if self.back is None:
                return ahead
            return torch.cat([ahead, _ordered(self.back(_ordered(x, turned))[0], turned)], 2)


class RecurrentModel(nn.Module):
    """Layers of LSTM, GRU or tanh cells over the steps of a sequence, then a linear layer on the last state of each direction.

    Samples are floats (steps, features), or images, each of whose rows is a step with the values of all channels; or a mapping of one such
    input, or of tokens (steps,), which are embedded, and a mask (steps,), true or 1 where a step is valid. The state at the last valid
    step counts, and what stands at others changes nothing; a sample without a valid step has the state 0.

    Source: Elman, "Finding Structure in Time", Cognitive Science 1990; Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural
    Computation 1997; Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014; Schuster & Paliwal,
    "Bidirectional Recurrent Neural Networks", IEEE Transactions on Signal Processing 1997.

    Args:
        shape: of a sample: (steps, features), (channels, height, width), or an entry for each of the inputs.
        outputs: size of the last layer.
        cell: lstm | gru | tanh.
        hidden: units of a layer in a direction, and size of an embedding, ≥ 1.
        layers: how many, ≥ 1.
        bidirectional: whether the steps are read in both directions.
        sequence: name of the input that holds the steps; None: the only one beside the mask.
        mask: name of the input that says which steps are valid; None: "mask", if there is one.
        vocabulary: number of different tokens, ≥ 1; None: as many as the data has, from 0 to the largest.

    Raises:
        RecipeError: samples that are no sequences, a mask of another shape, tokens below 0 or beyond the vocabulary, a vocabulary without tokens.
    """

    takes_named_inputs: ClassVar[bool] = True
    takes_any_length: ClassVar[bool] = True

    def __init__(
        self,
        shape: Sequence[int] | Mapping[str, Entry],
        outputs: int,
        cell: str = "lstm",
        hidden: int = 64,
        layers: int = 1,
        bidirectional: bool = False,
        sequence: str | None = None,
        mask: str | None = None,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        expect_choice("model.cell", cell, list(CELLS))
        expect_count("model.hidden", hidden)
        expect_count("model.layers", layers)
        expect(isinstance(bidirectional, bool), "model.bidirectional", "true or false", bidirectional)
        self.names: tuple[str, str | None] | None = None
        if isinstance(shape, Mapping):
            self.names = find_places(shape, "rnn", "sequence", sequence, mask)
            entry = shape[self.names[0]]
        else:
            entry = Entry(tuple(shape), "float32")
        self.mask = None if self.names is None else self.names[1]
        self.embedding = None
        if entry.kind == "int64" and len(entry.shape) == 1:
            self.embedding = nn.Embedding(vocabulary_of(vocabulary, entry), hidden)
            features = hidden
        else:
            asked = "floats (steps, features), images (channels, height, width), or tokens (steps,) by name"
            fits = entry.kind.startswith("float") and len(entry.shape) in (2, 3)
            expect(fits, "data for model=rnn", asked, f"{entry.kind} {entry.shape}")
            expect_no_vocabulary(vocabulary, entry)
            features = entry.shape[-1] * (entry.shape[0] if len(entry.shape) == 3 else 1)
        self.hidden, width = hidden, hidden * (1 + bidirectional)
        sizes = [features, *[width] * (layers - 1)]
        self.layers = nn.ModuleList([Layer(cell, size, hidden, bidirectional) for size in sizes])
        self.head = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Outputs (samples, outputs)."""
        x, mask = (inputs, None) if isinstance(inputs, Tensor) else _named(inputs, self.names)
        if x.ndim == 4:
            x = x.transpose(1, 2).flatten(2)
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask > 0
        x = x.masked_fill(~valid if x.ndim == 2 else ~valid.unsqueeze(-1), 0)
        x = x if self.embedding is None else self.embedding(x)
        if mask is not None:  # what is valid first
            x = _ordered(x, _valid_first(valid))
        steps, lengths = torch.arange(x.shape[1], device=x.device), valid.sum(1, keepdim=True)
        turned = torch.where(steps < lengths, lengths - 1 - steps, steps)
        for layer in self.layers:
            x = layer(x, turned)
        last = _ordered(x, (lengths - 1).clamp_min(0)).squeeze(1)
        state = torch.cat([last[:, : self.hidden], x[:, 0, self.hidden :]], 1)
        return self.head(state.masked_fill(lengths == 0, 0))


def _named(inputs: Mapping[str, Tensor], names: tuple[str, str | None] | None) -> tuple[Tensor, Tensor | None]:
    """The sequence and its mask."""
    assert names is not None, "made for one tensor"
    return inputs[names[0]], None if names[1] is None else inputs[names[1]]


def _valid_first(valid: Tensor) -> Tensor:
    """The index (samples, steps) that puts valid steps first, all in their order; by counting, as not every runtime sorts stably."""
    ones, others = valid.long(), (~valid).long()
    places = torch.where(valid, ones.cumsum(1), ones.sum(1, keepdim=True) + others.cumsum(1)) - 1
    return torch.zeros_like(places).scatter(1, places, torch.arange(valid.shape[1], device=valid.device).expand_as(places))


def _ordered(x: Tensor, index: Tensor) -> Tensor:
    """Of steps (samples, steps, features) those that an index (samples, steps) names."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _single_precision_on_cpu(x: Tensor) -> AbstractContextManager[object]:
    """Torch has no LSTM of 16 bits on every CPU: mixed precision leaves recurrent layers out there."""
    return torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext()


def _differentiable(training: bool) -> AbstractContextManager[object]:
    """cuDNN has no derivatives of recurrent layers in evaluation mode, where an attack asks for them: compute without it there."""
    slow = not training and torch.is_grad_enabled() and torch.backends.cudnn.enabled
    return torch.backends.cudnn.flags(enabled=False) if slow else nullcontext()
