"""Short real trainings on the digits, in which one option after the other is tried."""

from __future__ import annotations

import atexit
import copy
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from plugins.base import Plugin, RecipeError, implementers
from recipes.check.choice import NO_TECHNIQUES, asks_for_run, catalogue, is_many, node_of, option_of, select
from recipes.check.samples import expect_loss
from recipes.check.trained import CopyingKeeper
from recipes.check.weights_file import weights_file
from recipes.config.catalogue import FOLDER
from recipes.config.launchers import offer_launchers
from recipes.config.run_files import CHECKPOINTS, CONFIG
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.engine.module import RecipeModule
from recipes.run.build import build_data, build_plugins, make_module
from recipes.run.trainer import make_trainer

SMALL = (
    "model=cnn",
    "model._target_=recipes.check.small_net.SmallNet",  # with a residual branch too
    "model.channels=[4,8]",
    "model.hidden=16",
    "data.batch_size=16",
    "logger=[]",
    "optimizer=momentum",
    "optimizer.lr=0.02",
)

MILDER: dict[str, dict[str, Any]] = {  # values with which an option trains on digits of 8 × 8 pixels
    "init/uniform": {"low": -0.2, "high": 0.2},
    # of a map of one pixel a convolution with a stride has wrong gradients in bfloat16, by oneDNN; images of 4 × 4 come to that
    "curriculum/progressive_resizing": {"initial_scale": 0.75, "size_increment": 2},
}

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def config_of(names: Sequence[str], *overrides: str) -> dict[str, Any]:
    """The resolved config of a small run with some options."""
    return copy.deepcopy(_composed(tuple(names), *overrides))


@cache
def _composed(names: tuple[str, ...], *overrides: str) -> dict[str, Any]:
    groups = {name.split("/")[0] for name in names}
    small = [word for word in SMALL if word.partition("=")[0].partition(".")[0] not in groups]
    offer_launchers()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        composed = compose("train", [*small, *select(names), *overrides])
    config: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    for name in names:
        give_values(config, name)
    return config


def give_values(config: dict[str, Any], name: str) -> None:
    """Name a trained run where an option asks for one, as a user would; other values where its own let no training go well."""
    node, starts = node_of(config, name), name.startswith("init/")
    node.update(MILDER.get(name, {}))
    for parameter in asks_for_run(name):
        if node[parameter] is None:
            found = weights_file(config, _own_data(config) or digits()) if starts else None
            node[parameter] = str(found or trained_run())


def merged_config(names: Sequence[str], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `config_of` gives, put together from the files of the options: composing takes as long as a short training.

    `settings` are values by their place, such as `{"trainer.precision": "bf16-mixed"}`.
    """
    config = config_of([])
    for name in names:
        group, option = name.split("/")
        node = copy.deepcopy(option_of(name).node)
        if is_many(group):
            config.setdefault(group, {})[option] = node
        else:
            config[group] = node
        if group == "data" and "batch_size" in node:
            node["batch_size"] = 16
    groups = {name.split("/")[0] for name in names}
    if "data" in groups and "model" not in groups and len(data_of(config).shape) != 3:
        config["model"] = {**catalogue().groups["model"]["mlp"].node, "hidden": [16]}  # takes samples of any shape
    for name in names:
        give_values(config, name)
    for place, value in (settings or {}).items():
        group, key = place.split(".")
        config[group][key] = value
    return config


@cache
def trained_run() -> Path:
    """The folder of a short run on the digits, for options that ask for one; it is gone when this process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    offer_launchers()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        composed = compose("train", ["data.batch_size=16", "logger=[]", "model.hidden=[16]", "trainer.val_every_n_steps=3"])
    config: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    fit(config, folder, 3)
    config["logger"] = {}
    (folder / CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


@cache
def needs(name: str) -> tuple[tuple[str, ...], ...]:
    """What an option cannot do without, as its own refusal says: mc_dropout alone asks for +regularizer=dropout.

    For each the options that will do, the one that was asked for first: where a group takes one option another may be chosen already.
    """
    return _needs(name, "numbers" if works_on(name) == {"numbers"} else "classes")[0]


@cache
def _needs(name: str, kind: str) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """What an option cannot do without on classes or numbers, and whether it has a loss for them."""
    found: tuple[tuple[str, ...], ...] = ()
    while True:
        names = _beside(name, found)
        try:
            config = merged_config(names)
            own = _own_data(config)
            module = build(config, data=own or KINDS[kind]())
        except RecipeError as error:
            taken = {other.split("/")[0] for other in names if not is_many(other.split("/")[0])}
            for group, option in re.findall(r"(\w+)=(\w+)", str(error)):
                if group not in taken and option in catalogue().groups.get(group, ()) and f"{group}/{option}" not in names:
                    alone = is_many(group) or group in NO_TECHNIQUES  # other data, or another model, would not do
                    rest = [] if alone else [other for other in catalogue().groups[group] if other != option]
                    found = (*found, tuple(f"{group}/{other}" for other in (option, *rest)))
                    break
            else:
                raise
        else:
            try:
                expect_loss(module if own is None else build(config, data=KINDS[kind]()), KINDS[kind]())
            except RecipeError:
                return found, False
            return found, True


def with_companions(name: str) -> tuple[str, ...]:
    """The option, with what it cannot do without."""
    return _beside(name, needs(name))


def _beside(name: str, needed: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return (name, *(alternatives[0] for alternatives in needed))


@cache
def digits() -> Any:
    """The digits, read once."""
    data = build_data(config_of([]))
    data.setup()
    return data


@cache
def numbers() -> Any:
    """The digits with a number to predict in place of a class: their mean brightness."""
    data = copy.deepcopy(digits())
    for split in data.splits.values():
        split.targets = {"": split.x.float().flatten(1).mean(1, keepdim=True)}
    return data


KINDS = {"classes": digits, "numbers": numbers}  # what an option can be tried on


def data_of(config: dict[str, Any]) -> Any:
    """What a config is tried on: its own data, or of the digits numbers where one of its options is refused for classes and not for them."""
    if (own := _own_data(config)) is not None:
        return own
    return numbers() if any(works_on(name) == {"numbers"} for name in names_in(config)) else digits()


def _own_data(config: dict[str, Any]) -> Any:
    if config["data"].get("_target_") == config_of([])["data"]["_target_"]:
        return None
    return _other_data(yaml.safe_dump({"data": config["data"], "loss": config["loss"]}))


@cache
def _other_data(text: str) -> Any:
    data = build_data(yaml.safe_load(text))
    data.setup()
    return data


def names_in(config: dict[str, Any]) -> Iterator[str]:
    """The techniques of a config, as "group/option"."""
    for group, found in catalogue().groups.items():
        node = config.get(group)
        if node and group not in NO_TECHNIQUES:
            one = [option for option, file in found.items() if file.node.get("_target_") == node.get("_target_")]
            yield from (f"{group}/{option}" for option in (node if is_many(group) else one[:1]) if option in found)


@cache
def works_on(name: str) -> frozenset[str]:
    """Which of "classes" and "numbers" an option can be tried on: a module is built for them, and has a loss. What it needs is beside it."""
    found = set()
    for kind in KINDS:
        with suppress(RecipeError):
            if _needs(name, kind)[1]:
                found.add(kind)
    return frozenset(found)


def build(config: dict[str, Any], plugins: Sequence[Plugin] | None = None, data: Any = None) -> RecipeModule:
    """The module of a config, with its plugins (or those given, in the order given), for data (or what it is tried on)."""
    data, plugins = data or data_of(config), build_plugins(config) if plugins is None else plugins
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what an option says to a user
        return make_module(config, data, plugins, before=_phase_before(config, data, plugins))


def _phase_before(config: dict[str, Any], data: Any, plugins: Sequence[Plugin]) -> Mapping[str, Tensor] | None:
    """Weights, drawn with another seed, for what asks for a later phase of a run and learns in it from the one before; None: nothing does."""
    if not implementers(plugins, "next_phase"):
        return None
    return make_module({**config, "seed": 1 + config["seed"]}, data, build_plugins(config)).state_dict()


def fit(
    config: dict[str, Any],
    folder: Path,
    steps: int = 3,
    reverse: bool = False,
    copy_at: int | None = None,
    resume: Path | None = None,
    prepare: Callable[[RecipeModule], object] = lambda module: None,
    data: Any = None,
) -> RecipeModule:
    """Train some steps; `copy_at` keeps the checkpoint saved at that step as folder/copy.ckpt, `prepare` is called before the first.

    `data` are what it is trained on, without them what it is tried on.
    """
    plugins, data = build_plugins(config)[:: -1 if reverse else 1], data or data_of(config)
    if data is numbers() and (rate := config["optimizer"].get("lr")):  # a mean of squares is steep, and no technique tames it
        config = {**config, "optimizer": {**config["optimizer"], "lr": 0.01 * rate}}
    module = build(config, plugins, data)
    prepare(module)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    loader = StepLoader(data.splits["train"], config["data"]["batch_size"], 0, module.parts)
    keeper = CopyingKeeper(folder / CHECKPOINTS, "val/acc" if data is digits() else "val/loss", copy_at or 0)
    config = {**config, "max_steps": steps, "trainer": {**config["trainer"], "accelerator": "cpu", "devices": world}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make_trainer(config, folder, [], [*plugins, keeper])
        validation = EvaluationLoader(data.splits["val"], config["data"].get("eval_batch_size"))
        trainer.fit(module, loader, validation, ckpt_path=resume and str(resume))
    return module
