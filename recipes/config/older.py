"""Configs of runs that are older than a key or a parameter: they have its default, which stands for what was before there was one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.config.catalogue import Catalogue
from recipes.config.moved import renew


def completed(catalogue: Catalogue, config: Mapping[str, Any], options: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A config of any version as it would be written now.

    Args:
        catalogue: knows the options that are installed here; of others nothing is added.
        config: of the run.
        options: the names of its options by group.
    """
    whole = {**catalogue.keys, **renew(dict(config))}
    for group, names in options.items():
        for name in names:
            option = catalogue.groups.get(group, {}).get(str(name))
            if option is None or not isinstance(node := whole.get(group), Mapping):
                continue
            inner = node.get(name) if option.wrapped else node
            if not isinstance(inner, Mapping) or inner.get("_target_") != option.node.get("_target_"):
                continue
            plain = {key: value for key, value in option.parameters.items() if not (isinstance(value, str) and "${" in value)}
            whole[group] = {**node, name: {**plain, **inner}} if option.wrapped else {**plain, **inner}
    return whole
