"""Where dropout belongs in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from plugins.activations import Passage, Place, named, passage
from plugins.base import RecipeError
from plugins.sites import ACTIVATIONS, find_sites, own_modules

Site = tuple[str, nn.Module]


def dropout_sites(model: nn.Module, shape: Sequence[int] | None, names: Sequence[str] | None = None) -> list[Site]:
    """The modules whose outputs are to be dropped, and the nn.Dropout behind activations that are to be changed, with names.

    Args:
        model: to look at.
        shape: of a sample; None where it is not known, and modules are all that can be found.
        names: narrows what is found, with wildcards; the whole name of any other module adds that.

    Raises:
        RecipeError: there is none, none with such a name, or one that cannot be acted on.
    """
    if shape is None:
        return find_sites(model, ACTIVATIONS, "activation", names)
    found = passage(model, shape)
    hidden = found.hidden()
    own = _own_dropout(found, hidden)
    sites = {id(place): own.get(place.made) or _host(found, place) for place in hidden}
    if names:
        chosen = _narrowed(model, hidden, sites, names)
    else:
        _expect_reachable(model, [place for place in hidden if sites[id(place)] is None])
        chosen = list(dict.fromkeys(site for site in sites.values() if site))
    if not chosen:
        if not found.activations:
            find_sites(model, ACTIVATIONS, "activation")  # tells what was looked for
        raise RecipeError(
            f"no hidden activation in {type(model).__name__}: no layer follows one, and the output is not to be dropped; choose another "
            f"model or leave dropout out"
        )
    _expect_apart(found, hidden, chosen)
    return chosen


def _host(found: Passage, place: Place) -> Site | None:
    """The module that returns what an activation gives, be it the activation itself or one whose forward ends with it."""
    return found.returned.get(place.made) if place.function else (place.name, place.module)


def _own_dropout(found: Passage, hidden: Sequence[Place]) -> dict[object, Site]:
    """The model's own nn.Dropout right behind a hidden activation, by where that was made."""
    made = {place.made for place in hidden if place.made is not None}
    behind = [place for place in found.dropouts if type(place.module) is nn.Dropout and place.taken in made]
    for place in behind:
        if any(other.module is place.module and other.taken not in made for other in found.dropouts):
            raise RecipeError(
                f"regularizer/dropout: the model's own dropout {place.name} stands behind an activation and elsewhere too: give each place "
                f"an nn.Dropout of its own"
            )
    return {place.taken: (place.name, place.module) for place in behind}


def _expect_reachable(model: nn.Module, functions: Sequence[Place]) -> None:
    if functions:
        raise RecipeError(
            f"regularizer/dropout: {type(model).__name__} calls activations by functions, behind which no layer can be put ({named(functions)}): "
            f"write them as modules such as nn.ReLU(), or name modules whose outputs are to be dropped in regularizer.dropout.sites=[NAME]"
        )


def _expect_apart(found: Passage, hidden: Sequence[Place], chosen: Sequence[Site]) -> None:
    inside, picked = {id(place) for place in hidden}, {id(module) for _, module in chosen}
    for place in found.activations:
        host = _host(found, place)
        if id(place) not in inside and host and id(host[1]) in picked:
            raise RecipeError(
                f"regularizer/dropout: the activation {host[0]} makes the model's output too, which is not to be dropped: give the output a "
                f"module of its own"
            )


def _narrowed(model: nn.Module, hidden: Sequence[Place], sites: Mapping[int, Site | None], names: Sequence[str]) -> list[Site]:
    known: dict[str, Site] = {}
    for place in hidden:
        if site := sites[id(place)]:
            known |= {site[0]: site} | ({} if place.function else {place.name: site})
    modules, chosen = dict(own_modules(model)), []
    for name in names:
        matching = [site for there, site in known.items() if fnmatchcase(there, name)]
        if not matching and name and name in modules:
            matching = [(name, modules[name])]
        chosen += matching
    if not chosen:
        raise RecipeError(f"no activation matches sites={list(names)}; the model has: {', '.join(known) or 'none at all'}")
    return list(dict.fromkeys(chosen))
