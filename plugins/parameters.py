"""What a parameter is: the one rule by which weights are told from biases and norms, for all that acts on weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

from plugins.depth import SideBySide
from plugins.sites import NORMS, RECURRENT, WEIGHTED

TABLES: tuple[type[nn.Module], ...] = (nn.Embedding, nn.EmbeddingBag)
LAYERS: tuple[type[nn.Module], ...] = (*WEIGHTED, *RECURRENT, *TABLES, nn.MultiheadAttention, nn.Bilinear)
POSITION = re.compile(r"(^|[._])(pos|positions?|positional|wpe)($|[._])|pos_?emb")
ADDED = re.compile(r"(^|[._])(cls|tokens?|latents?|prompts?|queries|registers?|gamma|beta|scale|temperature)($|[._])|embed")
CALLED_WEIGHT = re.compile(r"(^|_)(w|weights?|kernel)($|_|\d)")
STRENGTH = {"weight": 2, "norm": 1, "bias": 0}  # of tied parameters: what is a weight anywhere is one


@dataclass(frozen=True)
class Named:
    """A parameter, its first name in the model, the layer it belongs to, and what it is: "weight", "norm" or "bias".

    `place` is the layer, or the modules side by side, as heads of several tasks are, of which it is one.
    """

    name: str
    parameter: nn.Parameter
    kind: str
    module: nn.Module
    place: nn.Module


def named_parameters(model: nn.Module) -> list[Named]:
    """All parameters of a model in its order, each once however often it is used, with what they are.

    | a parameter | is a |
    |---|---|
    | of a norm layer; of one dimension, of a module named …Norm | norm |
    | named …bias… | bias |
    | of a layer of torch's: linear, convolution, recurrent, attention, a table of embeddings | weight |
    | of a module of one's own, with several dimensions | weight |
    | there, of one dimension, or of one that is more than 1: a slope, a scale | bias |
    | there, the same for all samples (1, …), or named as a token or an embedding | bias |
    | named as a position, also the table of an embedding | bias |

    What is trained of a parametrized weight (`torch.nn.utils.parametrize`) is a weight, of a parametrized bias a bias.
    A parameter with several places, such as an embedding that is the output layer too, is a weight if it is one anywhere.
    """
    found: dict[int, Named] = {}
    heads: tuple[str, nn.Module | None] = ("", None)
    for path, owner in model.named_modules():
        if isinstance(owner, SideBySide):
            heads = (f"{path}." if path else "", owner)
        for name, parameter in owner.named_parameters(recurse=False):
            layer, place = owner, f"{path}.{name}" if path else name
            full = place
            if isinstance(owner, parametrize.ParametrizationList):  # PATH.parametrizations.weight.original
                *above, _, called = path.split(".")
                layer, place = model.get_submodule(".".join(above)), ".".join([*above, called])
            kind = kind_of_parameter(layer, place, parameter)
            beside = layer if heads[1] is None or not place.startswith(heads[0]) else heads[1]
            known = found.get(id(parameter))
            if known is None:
                found[id(parameter)] = Named(full, parameter, kind, layer, beside)
            elif STRENGTH[kind] > STRENGTH[known.kind]:
                found[id(parameter)] = Named(known.name, parameter, kind, known.module, known.place)
    return list(found.values())


def kind_of_parameter(layer: nn.Module, name: str, parameter: Tensor) -> str:
    """What a parameter is, by the layer that it belongs to, its name in the model and its shape; see `named_parameters`."""
    called = name.rpartition(".")[2].lower()
    own_norm = not isinstance(layer, LAYERS) and type(layer).__name__.lower().endswith("norm") and is_vector(parameter)
    if isinstance(layer, NORMS) or own_norm:
        return "norm"
    if "bias" in called or (isinstance(layer, TABLES) and POSITION.search(name.lower())):
        return "bias"
    if isinstance(layer, LAYERS) and called.startswith(("weight", "in_proj", "q_proj", "k_proj", "v_proj")):
        return "weight"
    if parameter.ndim < 2 or POSITION.search(called):
        return "bias"
    if CALLED_WEIGHT.search(called):
        return "weight"
    return "bias" if parameter.shape[0] == 1 or is_vector(parameter) or ADDED.search(called) else "weight"


def by_unit(weight: Tensor, layer: nn.Module) -> Tensor:
    """A view (groups, units, *numbers) of a weight: for each unit the weights that lead to it."""
    if isinstance(layer, _ConvTransposeNd):
        return weight.unflatten(0, (layer.groups, -1)).transpose(1, 2)
    return weight.unsqueeze(0)


def is_vector(parameter: Tensor) -> bool:
    """Whether no more than one dimension is longer than 1."""
    return sum(size > 1 for size in parameter.shape) <= 1


def weights_of(model: nn.Module) -> Iterator[nn.Parameter]:
    """The trained weights, each once: not biases, not the parameters of norm layers. See `named_parameters`."""
    for named in named_parameters(model):
        if named.kind == "weight" and named.parameter.requires_grad:
            yield named.parameter
