"""A small transformer for sequences of tokens, or of steps of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugins.base import RecipeError, expect, expect_choice, expect_count
from plugins.inputs import Entry
from recipes.models.base import activation_class
from recipes.models.named import expect_no_vocabulary, find_places, vocabulary_of


class Attention(nn.Module):
    """Self-attention with several heads: softmax(QKᵀ / √d) V over the places that the mask keeps.

    Args:
        width: of a token, a multiple of heads.
        heads: how many.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens (samples, length, width) from tokens, each of which sees those where the mask (samples, length) is true."""
        samples, length, width = x.shape
        queries, keys, values = self.project(x).view(samples, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None, :])
        return self.out(seen.transpose(1, 2).reshape(samples, length, width))


class Layer(nn.Module):
    """x ← x + attention(norm(x)), then x ← x + mlp(norm(x)).

    Args:
        width: of a token.
        heads: of attention.
        hidden: units of the layer inside of the mlp.
        activation: its name.
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation_class(activation)(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens (samples, length, width) from tokens and their mask (samples, length)."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Waves(nn.Module):
    """Places as sines and cosines of wavelengths from 2π to 2π · 10,000: sin(p / 10000^(2i/width)) and the cosine of it, one behind the other.

    Args:
        width: of a place.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, places: Tensor) -> Tensor:
        """Vectors (places, width) of whole numbers (places,)."""
        powers = torch.arange(0, self.width, 2, device=places.device) / self.width
        angles = places.unsqueeze(1) * 10_000.0**-powers
        return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, : self.width]


class TransformerModel(nn.Module):
    """Embeddings of tokens, or a linear layer on steps of numbers, their places, encoder layers that normalize first, and a linear layer on
    the mean of what the mask keeps.

    Its input is a dict with tokens, whole numbers (samples, length), or with steps, floats (samples, length, features), and a mask (samples,
    length), true or 1 where there is one; without a mask all places count. A sample without any has the mean 0. What stands where the mask
    leaves out changes nothing. Places of tokens are learned, those of steps are sines and cosines, so that sequences may be of any length.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Xiong et al., "On Layer Normalization in the Transformer
    Architecture", ICML 2020 (the norms' places).

    Args:
        shape: of a sample: an entry for each of the inputs.
        outputs: size of the last layer.
        tokens: name of the input that holds tokens or steps; None: the only one beside the mask.
        mask: name of the input that says where there are some; None: "mask", if there is one.
        vocabulary: number of different tokens; None: as many as the data has, from 0 to the largest.
        width: size of an embedding, a multiple of heads.
        layers: number of encoder layers.
        heads: of attention, in each layer.
        hidden: units inside of a layer.
        activation: relu | tanh | sigmoid | softplus | gelu | silu | leaky_relu | elu.
        pooling: mean: outputs for a sample, (samples, outputs) | none: for each token, (samples, outputs, length).

    Raises:
        RecipeError: inputs that are no sequence, a mask of another shape, tokens below 0 or beyond the vocabulary, a vocabulary without tokens.
    """

    takes_named_inputs: ClassVar[bool] = True

    def __init__(
        self,
        shape: Mapping[str, Entry],
        outputs: int,
        tokens: str | None = None,
        mask: str | None = None,
        vocabulary: int | None = None,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        hidden: int = 128,
        activation: str = "gelu",
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        for name, number in (("width", width), ("layers", layers), ("heads", heads), ("hidden", hidden)):
            expect_count(f"model.{name}", number)
        expect(width % heads == 0, "model.width", f"a multiple of model.heads={heads}", width)
        expect_choice("model.pooling", pooling, ("mean", "none"))
        if not isinstance(shape, Mapping):
            raise RecipeError(
                f"data for model=transformer must have a sequence by name, such as data=npz data.input=[tokens,mask]; got one tensor with samples "
                f"of shape {tuple(shape)}"
            )
        self.tokens, self.mask = find_places(shape, "transformer", "tokens", tokens, mask)
        entry = shape[self.tokens]
        self.pooling, self.takes_any_length = pooling, entry.kind.startswith("float")
        self.embedding: nn.Module
        self.position: nn.Module
        if self.takes_any_length and len(entry.shape) == 2:
            expect_no_vocabulary(vocabulary, entry)
            self.embedding, self.position = nn.Linear(entry.shape[1], width), Waves(width)
        else:
            expect(
                entry.kind == "int64" and len(entry.shape) == 1,
                f"data for model=transformer: {self.tokens}",
                "whole numbers (length,) or floats (length, features) a sample",
                f"{entry.kind} {entry.shape}",
            )
            self.embedding = nn.Embedding(vocabulary_of(vocabulary, entry), width)
            self.position = nn.Embedding(entry.shape[0], width)
        self.encoder = nn.ModuleList([Layer(width, heads, hidden, activation) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Outputs (samples, outputs), or (samples, outputs, length) without pooling."""
        x = inputs[self.tokens]
        kept = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if self.mask is None else inputs[self.mask] > 0
        seen = kept | ~kept.any(1, keepdim=True)  # attention to nothing would be NaN
        places = torch.arange(x.shape[1], device=x.device)
        x = self.embedding(x.masked_fill(~kept if x.ndim == 2 else ~kept.unsqueeze(2), 0))
        x = x + self.position(places).to(x.dtype)
        for layer in self.encoder:
            x = layer(x, seen)
        x = self.norm(x)
        if self.pooling == "none":
            return self.head(x).transpose(1, 2)
        share = kept.to(x.dtype).unsqueeze(-1)
        return self.head((x * share).sum(1) / share.sum(1).clamp_min(1))
