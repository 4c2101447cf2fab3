"""Short real trainings on the digits, for tests that go over all options found in conf/."""

from __future__ import annotations

import copy
import logging
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from plugins.base import Plugin, RecipeError
from plugins.declare import RUN_FOLDER
from plugins.shards import whole
from recipes.config import catalogue as catalogue_module
from recipes.config.catalogue import Catalogue, Option
from recipes.config.launchers import offer_launchers
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.engine.checkpoint import BestAndLast
from recipes.engine.module import RecipeModule
from recipes.run import build as building
from recipes.run.build import build_data, build_plugins, find_class, make_module
from recipes.run.trainer import make_trainer

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
NO_TECHNIQUES = (*catalogue_module.NO_TECHNIQUES, "callback")
TRAINED = ROOT / "tests" / "data" / "kept" / "sweep" / "0"  # a run on the digits
SMALL = (
    "model=cnn",
    "model._target_=tests.small_net.SmallNet",  # with a residual branch too
    "model.channels=[4,8]",
    "model.hidden=16",
    "data.batch_size=16",
    "logger=[]",
    "optimizer=momentum",
    "optimizer.lr=0.02",
)

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
_installed_roots = building.installed_roots
building.installed_roots = lambda: {*_installed_roots(), "tests"}  # where the small model is, also when a run is loaded


@cache
def catalogue() -> Catalogue:
    """What can be chosen."""
    return Catalogue()


def options() -> list[str]:
    """Every technique in conf/, as "group/option"."""
    return sorted(
        f"{group}/{option}" for group, found in catalogue().groups.items() if group not in NO_TECHNIQUES for option in found
    )


def is_many(group: str) -> bool:
    """Whether several options of a group can be selected at once."""
    return catalogue().many(group)


def option_of(name: str) -> Option:
    """The file of an option."""
    group, option = name.split("/")
    return catalogue().groups[group][option]


def target(name: str) -> str:
    """The class that an option names."""
    return str(option_of(name).node["_target_"])


def select(names: Sequence[str]) -> list[str]:
    """The overrides that select options, as a user would type them."""
    chosen: dict[str, list[str]] = {}
    for name in names:
        group, option = name.split("/")
        chosen.setdefault(group, []).append(option)
    return [
        catalogue().spelling(group, found[0] if not is_many(group) else f"[{','.join(found)}]")
        for group, found in chosen.items()
    ]


def config_of(names: Sequence[str], *overrides: str) -> dict[str, Any]:
    """The resolved config of a small run with some options."""
    return copy.deepcopy(_composed(tuple(names), *overrides))


@cache
def _composed(names: tuple[str, ...], *overrides: str) -> dict[str, Any]:
    groups = {name.split("/")[0] for name in names}
    small = [word for word in SMALL if word.partition("=")[0].partition(".")[0] not in groups]
    offer_launchers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", [*small, *select(names), *overrides])
    config: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    for name in names:
        give_runs(config, name)
    return config


def give_runs(config: dict[str, Any], name: str) -> None:
    """Name a trained run where an option asks for one, as a user would."""
    group, option = name.split("/")
    node = config[group][option] if is_many(group) else config[group]
    for parameter, held in getattr(plugin_class(name), "declared_parameters", {}).items():
        if held.words == RUN_FOLDER and node[parameter] is None:
            node[parameter] = str(TRAINED)


def merged_config(names: Sequence[str]) -> dict[str, Any]:
    """What `config_of` gives, put together from the files of the options: composing takes as long as a short training."""
    config = config_of([])
    for name in names:
        group, option = name.split("/")
        node = copy.deepcopy(option_of(name).node)
        if is_many(group):
            config.setdefault(group, {})[option] = node
        else:
            config[group] = node
        give_runs(config, name)
    return config


@cache
def needs(name: str) -> tuple[tuple[str, ...], ...]:
    """What an option cannot do without, as its own refusal says: mc_dropout alone asks for +regularizer=dropout.

    For each the options that will do, the one that was asked for first: where a group takes one option another may be chosen already.
    """
    found: tuple[tuple[str, ...], ...] = ()
    while True:
        names = [name, *(alternatives[0] for alternatives in found)]
        try:
            build(merged_config(names))
        except RecipeError as error:
            taken = {other.split("/")[0] for other in names if not is_many(other.split("/")[0])}
            for group, option in re.findall(r"(\w+)=(\w+)", str(error)):
                if group not in taken and option in catalogue().groups.get(group, ()) and f"{group}/{option}" not in names:
                    rest = [] if is_many(group) else [other for other in catalogue().groups[group] if other != option]
                    found = (*found, tuple(f"{group}/{other}" for other in (option, *rest)))
                    break
            else:
                raise
        else:
            return found


def with_companions(name: str) -> tuple[str, ...]:
    """The option, with what it cannot do without."""
    return (name, *(alternatives[0] for alternatives in needs(name)))


@cache
def digits() -> Any:
    """The digits, read once."""
    data = build_data(config_of([]))
    data.setup()
    return data


def plugin_class(name: str) -> type[Plugin] | None:
    """The plugin class behind an option, if it is one."""
    found = find_class(target(name))
    return found if issubclass(found, Plugin) else None


@cache
def numbers() -> Any:
    """The digits with a number to predict in place of a class: their mean brightness."""
    data = copy.deepcopy(digits())
    for split in data.splits.values():
        split.targets = {"": split.x.float().flatten(1).mean(1, keepdim=True)}
    return data


def data_of(config: dict[str, Any]) -> Any:
    """What a config is tried on: the digits, or numbers where one of its options works on them alone."""
    return numbers() if any(works_on(name) == {"numbers"} for name in names_in(config)) else digits()


def names_in(config: dict[str, Any]) -> Iterator[str]:
    """The techniques of a config, as "group/option"."""
    for group, found in catalogue().groups.items():
        node = config.get(group)
        if node and group not in NO_TECHNIQUES:
            one = [option for option, file in found.items() if file.node.get("_target_") == node.get("_target_")]
            yield from (f"{group}/{option}" for option in (node if is_many(group) else one[:1]) if option in found)


@cache
def works_on(name: str) -> frozenset[str]:
    """Which of "classes" and "numbers" an option can be tried on: a module is built for them, and has a loss."""
    config, found = merged_config([name]), set()
    for kind, data in (("classes", digits()), ("numbers", numbers())):
        try:
            module = _made(config, data, build_plugins(config))
            x, targets = data.splits["train"].between(0, 4)
            with torch.no_grad():
                module.task_losses.minimized(module.outputs(x), module.as_batch((x, targets)).targets)
        except RecipeError:
            continue
        found.add(kind)
    return frozenset(found)


def build(config: dict[str, Any], plugins: Sequence[Plugin] | None = None, data: Any = None) -> RecipeModule:
    """The module of a config, with its plugins (or those given, in the order given), for data (or what it is tried on)."""
    return _made(config, data or data_of(config), build_plugins(config) if plugins is None else plugins)


def _made(config: dict[str, Any], data: Any, plugins: Sequence[Plugin]) -> RecipeModule:
    return make_module(config, data, plugins)


def fit(
    config: dict[str, Any],
    folder: Path,
    steps: int = 3,
    reverse: bool = False,
    copy_at: int | None = None,
    resume: Path | None = None,
) -> RecipeModule:
    """Train some steps; `copy_at` keeps the checkpoint saved at that step as folder/copy.ckpt."""
    plugins = build_plugins(config)
    if reverse:
        plugins = plugins[::-1]
    module, data = build(config, plugins), data_of(config)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    loader = StepLoader(data.splits["train"], config["data"]["batch_size"], 0, module.parts, lambda: module.steps_done)
    keeper = CopyingKeeper(folder / "checkpoints", "val/acc" if data is digits() else "val/loss", copy_at or 0)
    config = {**config, "max_steps": steps, "trainer": {**config["trainer"], "accelerator": "cpu", "devices": world}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make_trainer(config, folder, [], [*plugins, keeper])
        trainer.fit(module, loader, EvaluationLoader(data.splits["val"]), ckpt_path=resume and str(resume))
    return module


class CopyingKeeper(BestAndLast):
    """Keeps the first checkpoint that was saved between two steps."""

    def on_train_batch_start(self, trainer: Any, *arguments: Any) -> None:
        """Copy it before a later one takes its place."""
        super().on_train_batch_start(trainer, *arguments)
        if self.every_n_steps and trainer.global_step == self.every_n_steps and trainer.is_global_zero:
            shutil.copy(self.last_path, self.folder.parent / "copy.ckpt")


def weights(module: RecipeModule) -> dict[str, torch.Tensor]:
    """All parameters and buffers of the model."""
    return {name: whole(value).clone() for name, value in module.model.state_dict().items()}


def parameters(module: RecipeModule) -> dict[str, torch.Tensor]:
    """All parameters of the model."""
    return {name: whole(value.detach()).clone() for name, value in module.model.named_parameters()}


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    """The names of tensors that differ in a bit; extra buffers and layers without weights do not count."""
    assert first.keys() == second.keys(), set(first) ^ set(second)
    return [name for name in first if not torch.equal(first[name], second[name])]
