"""The config of a run that is there already: read as a stranger's, and changed in what may change. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import OverrideType
from omegaconf import OmegaConf

from plugins.errors import RecipeError
from recipes.config import untrusted
from recipes.config.allowed import keep_at_home
from recipes.config.catalogue import Catalogue
from recipes.config.choosing import check_names
from recipes.config.moved import renew
from recipes.config.nothing import is_nothing
from recipes.config.own import expect_typed
from recipes.config.parsing import parse
from recipes.config.places import check_files
from recipes.config.run_files import CHECKPOINTS, CONFIG, LAST, RESULT
from recipes.config.syntax import names_of
from recipes.config.tree import check_tree
from recipes.config.words import expect_once

ON_RESUME: tuple[str, ...] = (
    "max_epochs",
    "max_steps",
    "max_time",
    "name",
    "tags",
    "notes",
    "trainer",
    "logger",
    "data.path",
    "data.labels",
    "data.root",
    "data.in_memory",
    "data.workers",
    "data.eval_batch_size",
    "explain",
)
TRACES = (f"{CHECKPOINTS}/{LAST}", RESULT)  # either shows that a run began in a folder
BEFORE = {"matmul_precision": "high"}  # what all runs had when the trainer had no such setting
ON_EVALUATION = ("inference", "metric", "data", "trainer", "adversarial")
ON_PREDICTION = ("inference", "data", "trainer")
ON_EXPORT = ("inference", "data")
PLACES = ("path", "labels", "root")  # parameters of data that say where they lie
OF_SPLITS = ("split_seed", "test", "validation", "folds", "fold", "train_samples", "groups", "split")
SAME_SAMPLES = ("batch_size", "eval_batch_size", "in_memory", "workers", "download")  # which leave samples as they are


def read_run(catalogue: Catalogue, folder: Path) -> dict[str, Any]:
    """The config of a run folder, checked like a stranger's: nothing in it is resolved, and it names known options only."""
    path = folder / CONFIG
    check_files(folder)
    if not path.is_file() or not any((folder / trace).exists() for trace in TRACES):
        found = "there is no such folder" if not folder.is_dir() else "the folder has no such files"
        raise RecipeError(f"{folder} is no run: looked for config.yaml and {' or '.join(TRACES)}, but {found}")
    config = renew(untrusted.read_yaml(path))
    refuse_interpolation(config, str(path))
    try:
        expect_typed(catalogue, config)
        check_tree(catalogue, config)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    keep_at_home(config)
    missing = [
        name
        for name in catalogue.defaults
        if name != "recipe" and (name not in config or not (config[name] or catalogue.many(name)))
    ]
    if missing:
        raise RecipeError(f"{path} has no {', '.join(missing)}")
    settings = catalogue.groups["trainer"][catalogue.defaults["trainer"] or ""].content
    # a run that is older than a key, or than a setting of the trainer, has its default, or what there was before
    return deepcopy({**catalogue.keys, **config, "trainer": {**settings, **BEFORE, **config["trainer"]}})


def refuse_interpolation(value: object, place: str) -> None:
    if isinstance(value, str) and "${" in value:
        raise RecipeError(f"{place}: {value} is refused, only plain values are allowed here")
    if isinstance(value, Mapping):
        for pair in value.items():
            refuse_interpolation(list(pair), place)
    if isinstance(value, list):
        for element in value:
            refuse_interpolation(element, place)


def trained_data(folder: Path) -> dict[str, Any]:
    """The data in the config of a run that :func:`read_run` has read before."""
    found: dict[str, Any] = renew(untrusted.read_yaml(folder / CONFIG))["data"]
    return found


def expect_same_split(trained: Mapping[str, Any], tested: Mapping[str, Any]) -> None:
    """Refuse another split of the same data: it would test on samples that were trained on."""
    name = "standardize_targets"
    if trained.get(name, tested.get(name)) != tested.get(name):
        raise RecipeError(f"data.{name} is part of the trained model: leave it out")
    for name in OF_SPLITS:
        if _source(trained) == _source(tested) and trained.get(name) != tested.get(name):
            raise RecipeError(f"data.{name} cannot be changed on evaluation: the test would have samples that were trained on")


def shown_otherwise(trained: Mapping[str, Any], tested: Mapping[str, Any]) -> list[str]:
    """The parameters by which the data that a run was trained on becomes other samples, such as images of another size.

    Returns:
        Their names; empty where nothing differs, or where it is the data of another source.
    """
    if _source(trained) != _source(tested):
        return []
    alike = {*SAME_SAMPLES, *_places(trained)}  # a place is the same under another spelling
    names = [name for name in {**trained, **tested} if name not in alike and not name.startswith("_")]
    return sorted(name for name in names if trained.get(name) != tested.get(name))


def _source(node: Mapping[str, Any]) -> list[Any]:
    """Which data it is."""
    return [node.get("_target_"), node.get("name"), node.get("config"), _places(node)]


def _places(node: Mapping[str, Any]) -> dict[str, Path]:
    """Where it lies; of a class of one's own each text that is the path of something is a place."""
    is_own = not str(node.get("_target_")).startswith("recipes.")
    texts = {name: text for name, text in node.items() if isinstance(text, str) and text}
    return {name: Path(text).resolve() for name, text in texts.items() if name in PLACES or (is_own and Path(text).exists())}


def change(
    catalogue: Catalogue, config: dict[str, Any], words: Sequence[str], allowed: Sequence[str], when: str
) -> dict[str, Any]:
    """The config of a run with some of its groups and values replaced, those that are `allowed`."""
    overrides = parse(catalogue, words)
    expect_once(catalogue, overrides)
    for override in overrides:
        if override.is_sweep_override():
            raise RecipeError(f"{override.input_line} is a sweep; {when} takes one value")
        check_names(catalogue, override)
        if not any(f"{override.key_or_group}.".startswith(f"{name}.") for name in allowed):
            raise RecipeError(f"{override.input_line}: cannot be changed on {when}; what can: {', '.join(allowed)}")
        refuse_interpolation(override.value(), str(override.input_line))
    tree = OmegaConf.create(config)
    for override in sorted(overrides, key=lambda override: override.key_or_group not in catalogue.groups):
        key = override.key_or_group
        if key not in catalogue.groups:
            group, _, rest = key.partition(".")
            if group in catalogue.groups and not tree.get(group):
                raise RecipeError(f"{override.input_line}: no {group} is chosen; add {catalogue.spelling(group, 'OPTION')}")
            if group in catalogue.groups and catalogue.many(group) and rest.split(".")[0] not in tree[group]:
                raise RecipeError(f"{override.input_line}: {group}.{rest.split('.')[0]} is not chosen")
            OmegaConf.update(tree, key, override.value(), force_add=True)
        elif catalogue.many(key):
            nodes = {name: catalogue.groups[key][name].node for name in names_of(catalogue, override)}
            tree[key] = {**(tree.get(key) or {}), **nodes} if override.type == OverrideType.ADD else nodes
        else:
            tree[key] = {} if is_nothing(catalogue, override) else catalogue.groups[key][names_of(catalogue, override)[0]].node
    changed: dict[str, Any] = OmegaConf.to_container(tree)  # type: ignore[assignment]
    changed = {name: node for name, node in changed.items() if node != {} or name in catalogue.defaults}
    check_tree(catalogue, changed)
    return changed
