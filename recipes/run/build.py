"""Objects from a composed config. What a config may name is limited: a config that comes with a run folder is not trusted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.base import Plugin, Setting, Task, derive_seed, larger_is_better
from plugins.errors import RecipeError
from plugins.inputs import Shape, from_plain
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.changing import read_run
from recipes.config.choices import choices
from recipes.config.errors import first_line, of_own_code, one_line
from recipes.config.own import warn_of_changes
from recipes.config.quoting import show
from recipes.config.run_files import BEST, CHECKPOINTS
from recipes.data.base import Data
from recipes.data.split import samples_of
from recipes.engine.callbacks import check_callbacks
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.groups import GroupRules
from recipes.engine.logger import RunLogger
from recipes.engine.losses import refined
from recipes.engine.module import RecipeModule
from recipes.engine.randomness import seed_global
from recipes.engine.samples import ignored_label
from recipes.engine.units import MEAN
from recipes.run.annotations import expect_annotated
from recipes.run.classes import find_class, instantiate, make_data, of_library
from recipes.run.found import OwnSamples, find_runs
from recipes.run.passing import expect_passes, expect_takes_named_inputs
from recipes.run.pretrained import without_weights
from recipes.run.weights import load_weights

SPEAKING = ("data", "model", "loss", "optimizer", "scheduler")  # one of each in every run
OTHERS = ("data", "model", "loss", "optimizer", "scheduler", "trainer", "callback", "logger", "recipe", "hydra")
KNOWN = (MisconfigurationException, ImportError, TypeError, ValueError)  # whose messages tell of themselves


def technique_nodes(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The config nodes of all techniques, each with the place it has on the command line."""
    for group, node in config.items():
        if group in OTHERS or not isinstance(node, Mapping):
            continue
        if "_target_" in node:
            yield group, node
        else:
            for option, inner in node.items():
                yield f"{group}.{option}", inner


def build_plugins(config: Mapping[str, Any]) -> list[Plugin]:
    """All techniques of a run; a bad value is told with the place it has on the command line."""
    plugins = []
    for place, node in technique_nodes(config):
        try:
            plugins.append(instantiate(node, Plugin))
        except RecipeError as error:
            raise RecipeError(f"{place}: {error}") from None
    for plugin in plugins:
        if plugin.monitor and plugin.monitor_mode is None:
            plugin.monitor_mode = config.get("trainer", {}).get("mode")
    return plugins


def build_callbacks(config: Mapping[str, Any]) -> list[L.Callback]:
    """The chosen callbacks that are no techniques; a bad value is told with the place it has on the command line.

    A `mode` of null, where there is a `monitor`, is the direction in which that metric gets better.
    """
    built = []
    for option, node in (config.get("callback") or {}).items():  # configs of older runs have no callbacks
        if node.get("mode", "") is None and isinstance(node.get("monitor"), str):
            larger = larger_is_better(node["monitor"])
            if larger is None:
                raise RecipeError(
                    f"whether a larger or a smaller {node['monitor']} is better is not known: type callback.{option}.mode=max or min"
                )
            node = {**node, "mode": "max" if larger else "min"}
        try:
            kind = find_class(str(node["_target_"]), L.Callback)
        except RecipeError as error:
            raise RecipeError(f"callback.{option}: {error}") from None
        if of_library(node):
            expect_annotated(f"callback.{option}", kind, node)
        try:
            callback = instantiate(node, L.Callback)
        except Exception as error:  # a library's own check of its settings, or the lack of one
            told = one_line(error) if isinstance(error, KNOWN) else of_own_code(error)
            raise RecipeError(f"callback.{option}: {told}") from None
        if isinstance(callback, Plugin):
            raise RecipeError(f"callback.{option}: {type(callback).__name__} is a technique: put its option into another group")
        built.append(callback)
    check_callbacks(built, [], nn.Module())
    return built


def build_data(config: Mapping[str, Any]) -> Data:
    """The data, not loaded yet; it knows the label of samples that the loss leaves out, and what the loss says of its tasks."""
    data = make_data(config["data"])
    loss = build_loss(config) if "loss" in config else None
    data.ignored, data.refine = ignored_label(loss), partial(refined, loss)
    return data


def build_loss(config: Mapping[str, Any]) -> Any:
    """The loss."""
    return instantiate(config["loss"], nn.Module if of_library(config["loss"]) else None)


def build_optimizer(config: Mapping[str, Any]) -> tuple[partial[Optimizer], dict[str, Any]]:
    """What makes the optimizer from parameter groups, tried once on a single number, and what it is told of parameters."""
    node = dict(config["optimizer"])
    rules = {each.name: given for each in fields(GroupRules) if (given := node.pop(each.name, None)) is not None}
    GroupRules(**rules)
    make = partial(find_class(str(node.pop("_target_")), Optimizer), **node)
    try:
        make([nn.Parameter(torch.zeros(1, 1))])
    except RecipeError as error:
        raise RecipeError(f"optimizer: {error}") from None
    except Exception as error:  # a library's own check of its settings, or the lack of one
        kind = "" if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: "
        raise RecipeError(f"optimizer: {kind}{error}; its settings are {show(node)}") from None
    return make, rules


def build_model(config: Mapping[str, Any], shape: Shape, outputs: int, seed: int, places: tuple[int, ...] = ()) -> nn.Module:
    """The model, in training mode, with initial weights that depend on the seed alone, and outputs (samples, outputs, *places)."""
    if isinstance(shape, dict):
        expect_takes_named_inputs(find_class(str(config["model"]["_target_"])), shape)
    with torch.random.fork_rng(devices=[]):
        seed_global(derive_seed(seed, "model"), torch.device("cpu"))
        model = instantiate(config["model"], nn.Module, shape=shape, outputs=outputs)
        resting = list(_resting(model))
        expect_passes(model, shape, outputs, places)
    model.train()
    for part in resting:
        part.training = False
    return model


def _resting(model: nn.Module) -> Iterator[nn.Module]:
    """What its author has put into evaluation mode and does not train: parts none of whose parameters takes a gradient, and theirs."""
    for part in model.modules():
        parameters = list(part.parameters())
        if not part.training and parameters and not any(parameter.requires_grad for parameter in parameters):
            yield from (inner for inner in part.modules() if not inner.training)


def build_module(config: Mapping[str, Any], shape: Shape, outputs: int, places: tuple[int, ...] = ()) -> RecipeModule:
    """The module that trains the configured model, before any plugin has changed it."""
    optimizer, rules = build_optimizer(config)
    scheduler = instantiate(config["scheduler"])
    trainer = config["trainer"]
    module = RecipeModule(
        build_model(config, shape, outputs, config["seed"], places),
        build_loss(config),
        optimizer,
        scheduler,
        seed=config["seed"],
        parts=trainer["accumulate_grad_batches"],
        log_every_n_steps=trainer["log_every_n_steps"],
        compile=trainer["compile"],
        standardize_targets=config["data"].get("standardize_targets", True),
        **rules,
    )
    names = choices(_installed(tuple(sys.path)), {group: config[group] for group in SPEAKING if group in config})
    module.chosen = frozenset(f"{group}/{name}" for group in SPEAKING for name in names.get(group, ()))
    return module


@cache
def _installed(path: tuple[str, ...]) -> Catalogue:
    """What can be chosen with packages from the places in `path`, read once: it takes longer than to build a small module."""
    return Catalogue(installed_folders())


def build_loggers(config: Mapping[str, Any], folder: Path, facts: Mapping[str, Any]) -> list[RunLogger]:
    """The chosen loggers; metrics.csv in the run's folder is always written."""
    nodes = dict(config["logger"])
    nodes.setdefault("csv", {"_target_": "recipes.run.loggers.csv_files.CsvRunLogger"})
    return [instantiate(node, RunLogger, folder=folder, facts=facts) for _, node in sorted(nodes.items())]


def prepare_loggers(config: Mapping[str, Any]) -> None:
    """Begin what the chosen loggers start, such as a service, while the rest of a run is built."""
    for node in config["logger"].values():
        settings = {name: value for name, value in node.items() if not name.startswith("_")}
        kind: type[RunLogger] = find_class(str(node["_target_"]), RunLogger)
        kind.prepare(**settings)


def load_module(config: Mapping[str, Any], checkpoint: Path, further: list[Plugin] | None = None) -> RecipeModule:
    """The trained module of a finished run, in evaluation mode, with its weights from `checkpoint`."""
    state = load_checkpoint(checkpoint)
    kept = state["recipe"]
    tasks = tuple(
        Task(task["name"], task["kind"], task["outputs"], tuple(task["names"]), tuple(task.get("shape", ())))
        for task in kept["tasks"]
    )
    shape, split = from_plain(kept["shape"]), samples_of(kept["data"]) if kept.get("data") else None
    folder = str(checkpoint.parent.parent)
    own = OwnSamples(partial(build_data, config), kept)
    known = {"split": split, "folder": folder, "own_samples": own, "trained_on_validation": own.all_data}
    return with_weights(config, shape, tasks, str(checkpoint), state["state_dict"], further, **known)


def with_weights(
    config: Mapping[str, Any],
    shape: Shape,
    tasks: tuple[Task, ...],
    place: str,
    weights: Mapping[str, Tensor],
    further: list[Plugin] | None = None,
    **known: Any,
) -> RecipeModule:
    """The module of a run with weights that it has trained, from `place`, in evaluation mode."""
    module = build_module(without_weights(config), shape, tasks[0].outputs, tasks[0].shape)
    module.standardize_targets = f"model.{MEAN}" in weights  # older runs did not
    plugins = build_plugins(config) if further is None else further
    setting = Setting(shape, tasks, config["seed"], None, load_run, find_runs=find_runs, **known)
    module.build(plugins, setting, devices=1)
    if config["trainer"]["precision"] == "64-true":
        module.double()  # or the weights would be rounded
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise RecipeError(f"{place} does not fit the configured model: {first_line(error)}") from None
    return module.eval()


def on_one_device(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run as it is evaluated and predicts, without what only several devices have."""
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False}
    return {**config, "trainer": config["trainer"] | alone}


def load_run(folder: str | Path) -> RecipeModule:
    """The trained module of another run, with the weights of its best checkpoint, in evaluation mode.

    Args:
        folder: what the run has left, such as outputs/DATE/TIME-ID.
    """
    place = Path(folder)
    config = read_run(Catalogue(installed_folders()), place)
    warn_of_changes(config, place)
    return load_module(config, place / CHECKPOINTS / BEST)


def count_parameters(module: RecipeModule) -> int:
    """The number of numbers that are trained or could be."""
    return sum(parameter.numel() for parameter in module.model.parameters())


def make_module(
    config: Mapping[str, Any],
    data: Data,
    plugins: Sequence[Plugin],
    world: int = 1,
    restored: bool = False,
    before: Mapping[str, Tensor] | None = None,
) -> RecipeModule:
    """The module with all plugins' changes; `restored`: its weights will come from a checkpoint; `before`: those of the phase before."""
    if len(data.tasks) > 1 and not any(plugin.group == "multitask" for plugin in plugins):
        names = ", ".join(task.name for task in data.tasks)
        raise RecipeError(
            f"the data has several targets ({names}): add +multitask=equal to train them together, or name one in data.target"
        )
    begun = without_weights(config) if restored else config
    module = build_module(begun, data.shape, data.tasks[0].outputs, data.tasks[0].shape)
    module.data_seen, module.data_content, module.data_state = data.fingerprint, data.content, data.state()
    trainer = config["trainer"]
    module.build(
        plugins,
        replace(
            data.setting(config["seed"], load_run),
            load_weights=partial(load_weights, seen=data.fingerprint, content=data.content),
            find_runs=find_runs,
            restored=restored,
            with_weights=partial(with_weights, config, data.shape, data.tasks, "the phase before"),
            before=before,
        ),
        precision=trainer["precision"],
        devices=world,
        batch_size=None if data.batch_size == "full" else int(data.batch_size),
        compiled=trainer["compile"],
        sharded=trainer["strategy"] == "fsdp",
    )
    return module
