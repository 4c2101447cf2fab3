"""A small transformer for sequences of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plugins.base import RecipeError, expect, expect_choice, expect_count
from plugins.inputs import Entry
from recipes.models.base import activation_class
from recipes.models.named import vocabulary_of


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


class TransformerModel(nn.Module):
    """Embeddings of tokens and their places, encoder layers that normalize first, and a linear layer on the mean of what the mask keeps.

    Its input is a dict with tokens, whole numbers (samples, length), and a mask of the same shape, true or 1 where there is a token;
    without a mask all places count. A sample without a token has the mean 0. What stands where the mask leaves out changes nothing.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Xiong et al., "On Layer Normalization in the Transformer
    Architecture", ICML 2020 (the norms' places).

    Args:
        shape: of a sample: an entry for each of the inputs.
        outputs: size of the last layer.
        tokens: name of the input that holds tokens.
        mask: name of the input that says where there are some; None: "mask", if there is one.
        vocabulary: number of different tokens; None: as many as the data has, from 0 to the largest.
        width: size of an embedding, a multiple of heads.
        layers: number of encoder layers.
        heads: of attention, in each layer.
        hidden: units inside of a layer.
        activation: relu | tanh | sigmoid | softplus | gelu | silu | leaky_relu | elu.
        pooling: mean: outputs for a sample, (samples, outputs) | none: for each token, (samples, outputs, length).

    Raises:
        RecipeError: inputs that are no tokens, a mask of another shape, tokens below 0 or beyond the vocabulary.
    """

    takes_named_inputs: ClassVar[bool] = True

    def __init__(
        self,
        shape: Mapping[str, Entry],
        outputs: int,
        tokens: str = "tokens",
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
        self.tokens, self.mask = _places(shape, tokens, mask)
        entry = shape[self.tokens]
        self.pooling = pooling
        self.embedding = nn.Embedding(vocabulary_of(vocabulary, entry), width)
        self.position = nn.Embedding(entry.shape[0], width)
        self.encoder = nn.ModuleList([Layer(width, heads, hidden, activation) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Outputs (samples, outputs), or (samples, outputs, length) without pooling."""
        tokens = inputs[self.tokens]
        kept = torch.ones_like(tokens, dtype=torch.bool) if self.mask is None else inputs[self.mask] > 0
        seen = kept | ~kept.any(1, keepdim=True)  # attention to nothing would be NaN
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens.masked_fill(~kept, 0)) + self.position(places)
        for layer in self.encoder:
            x = layer(x, seen)
        x = self.norm(x)
        if self.pooling == "none":
            return self.head(x).transpose(1, 2)
        share = kept.to(x.dtype).unsqueeze(-1)
        return self.head((x * share).sum(1) / share.sum(1).clamp_min(1))


def _places(shape: object, tokens: str, mask: str | None) -> tuple[str, str | None]:
    """The names of the tokens and of the mask, None where there is none."""
    if not isinstance(shape, Mapping):
        raise RecipeError(
            f"data for model=transformer must have tokens by name, such as data=npz data.input=[tokens,mask]; got one tensor with samples of "
            f"shape {tuple(shape)}"  # type: ignore[arg-type]
        )
    for key, name in (("tokens", tokens), ("mask", mask)):
        if name is not None and name not in shape:
            raise RecipeError(f"model.{key} must be the name of an input, one of {', '.join(shape)}; got {name}")
    entry = shape[tokens]
    if len(entry.shape) != 1 or entry.kind != "int64":
        raise RecipeError(
            f"model.tokens={tokens} must be whole numbers (samples, length), got {entry.kind} of shape (samples, {', '.join(map(str, entry.shape))})"
        )
    mask = mask if mask is not None else "mask" if "mask" in shape else None
    if mask is not None and shape[mask].shape != entry.shape:
        raise RecipeError(
            f"model.mask={mask} must have the shape of the tokens, {entry.shape} a sample, got {shape[mask].shape}"
        )
    if unused := [name for name in shape if name not in (tokens, mask)]:
        raise RecipeError(
            f"model=transformer takes tokens and a mask, and has no use for {', '.join(unused)}: leave it out of data.input"
        )
    return tokens, mask
