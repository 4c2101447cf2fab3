"""Where techniques act that drop parts of the maps of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from plugins.activations import passage
from plugins.hidden import Site, follows_convolutions, hidden_sites
from plugins.sites import convolutions, expect_training


def is_map(shape: tuple[int, ...]) -> bool:
    """Whether a tensor holds maps (samples, channels, height, width) of more than a single point."""
    return len(shape) == 4 and shape[2] * shape[3] > 1


def map_sites(
    model: nn.Module, shape: Sequence[int], option: str, acts: Callable[[tuple[int, ...]], bool] = is_map
) -> list[Site]:
    """The modules that return hidden activations of convolutions, with names.

    Args:
        model: to look at.
        shape: of a sample.
        option: "group/option" of the technique that asks, for the messages.
        acts: whether the technique would change an activation of such a shape.

    Raises:
        RecipeError: there is none, one that cannot be acted on, or all are in evaluation mode.
    """
    found = passage(model, shape)
    if not found.activations:
        convolutions(model)  # tells what was looked for
    places = hidden_sites(
        model,
        found,
        option,
        acts=lambda place: acts(place.shape),
        suits=lambda place: follows_convolutions(found, place),
        narrows=False,
    )
    expect_training(option, model, [module for _, module in places])
    return places
