"""Where techniques that act on hidden activations find them: behind which modules, whoever has attached layers before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from plugins.activations import Passage, Place, named
from plugins.base import RecipeError, declare
from plugins.sites import ACTIVATIONS, find_sites, own_modules

Site = tuple[str, nn.Module]


def hidden_sites(
    model: nn.Module,
    found: Passage,
    option: str,
    names: Sequence[str] | None = None,
    instead: Mapping[Any, Site] | None = None,
    acts: Callable[[Place], bool] = lambda place: True,
    suits: Callable[[Place], bool] = lambda place: True,
    narrows: bool = True,
) -> list[Site]:
    """The modules that return a model's hidden activations, modules and functions alike, with names.

    Args:
        model: to look at.
        found: what blank samples met in it.
        option: "group/option" of the technique that asks, for the messages.
        names: narrows what is found, with wildcards; the whole name of any other module adds that.
        instead: modules to take in the place of those, by where an activation was made.
        acts: whether the technique would change what such an activation gives; what it leaves alone may share a module with others.
        suits: whether it is meant to.
        narrows: whether the technique has a parameter `sites`, which the messages may name.

    Raises:
        RecipeError: there is none, none with such a name, or one that cannot be acted on.
    """
    hidden = [place for place in found.hidden() if acts(place) and suits(place)]
    sites = {id(place): (instead or {}).get(place.made) or host_of(found, place) for place in hidden}
    if names:
        chosen = _narrowed(model, hidden, sites, names)
    else:
        hint = f", or name modules whose outputs are meant in {option.replace('/', '.')}.sites=[NAME]" if narrows else ""
        _expect_reachable(model, option, hint, [place for place in hidden if sites[id(place)] is None])
        chosen = list(dict.fromkeys(site for site in sites.values() if site))
    if not chosen:
        if not found.activations:
            find_sites(model, ACTIVATIONS, "activation")  # tells what was looked for
        raise RecipeError(
            f"no hidden activation in {type(model).__name__} on which {option} could act: no layer follows one, and the output stays as "
            f"it is; choose another model or leave {option} out"
        )
    inside, picked = {id(place) for place in hidden}, {id(module) for _, module in chosen}
    for place in found.activations:
        host = host_of(found, place)
        if id(place) not in inside and acts(place) and host and id(host[1]) in picked:
            raise RecipeError(
                f"{option}: the activation {host[0]} makes the model's output too, or what else is to stay as it is: give that a module of "
                f"its own"
            )
    return chosen


def host_of(found: Passage, place: Place) -> Site | None:
    """The module that returns what an activation gives, be it the activation itself or one whose forward ends with it."""
    return found.returned.get(place.made) if place.function else (place.name, place.module)


def _expect_reachable(model: nn.Module, option: str, hint: str, functions: Sequence[Place]) -> None:
    if functions:
        raise RecipeError(
            f"{option}: {type(model).__name__} calls activations by functions, behind which no layer can be put ({named(functions)}): "
            f"write them as modules such as nn.ReLU(){hint}"
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


def follows_convolutions(found: Passage, place: Place) -> bool:
    """Whether the layers that come last before an activation are convolutions."""
    seen, waiting, layers = set(), [place.made], []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if found.is_layer(node):
            layers.append(node)
        else:
            waiting += [before for before, _ in node.next_functions]
    return bool(layers) and all("Convolution" in node.name() for node in layers)


def named_sites(more: str) -> Any:
    """The declared parameter `sites`, by which a technique is told on which activations it acts; `more` says what else is to be known."""
    return declare.value(
        "names of activation modules, with wildcards, or whole names of any others",
        "a list of names",
        lambda value: isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value),
        default=None,
        null="all",
        more=more,
    )
