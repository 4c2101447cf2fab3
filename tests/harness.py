"""Short real trainings on the digits, for tests that go over all options found in conf/."""

from __future__ import annotations

import copy
import logging
import re
import shutil
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from plugins.base import Plugin, RecipeError
from plugins.declare import RUN_FOLDER
from plugins.shards import whole
from recipes.config.launchers import offer_launchers
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.engine.checkpoint import BestAndLast
from recipes.engine.module import RecipeModule
from recipes.run.build import build_data, build_plugins, find_class, make_module
from recipes.run.trainer import make_trainer

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
TRAINED = ROOT / "tests" / "data" / "kept" / "sweep" / "0"  # a run on the digits
FIXED = ("data", "model", "trainer", "callback", "logger", "recipe", "hydra", "study")
SMALL = (
    "model=cnn",
    "model.channels=[4,8]",
    "model.hidden=16",
    "data.batch_size=16",
    "logger=[]",
    "optimizer=momentum",
    "optimizer.lr=0.02",
)

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def options() -> list[str]:
    """Every technique in conf/, as "group/option"."""
    return sorted(f"{path.parent.name}/{path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name not in FIXED)


@cache
def is_many(group: str) -> bool:
    """Whether several options of a group can be selected at once: their files are wrapped in the option's own key."""
    return all(list(yaml.safe_load(path.read_text())) == [path.stem] for path in (CONF / group).glob("*.yaml"))


@cache
def defaults() -> dict[str, str]:
    """The groups that every run has one of."""
    entries = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
    return {
        group: option
        for entry in entries
        if isinstance(entry, dict)
        for group, option in entry.items()
        if group in options_by_group()
    }


@cache
def options_by_group() -> dict[str, list[str]]:
    """Options by group."""
    found: dict[str, list[str]] = {}
    for name in options():
        group, option = name.split("/")
        found.setdefault(group, []).append(option)
    return found


def select(names: Sequence[str]) -> list[str]:
    """The overrides that select options, as a user would type them."""
    chosen: dict[str, list[str]] = {}
    for name in names:
        group, option = name.split("/")
        chosen.setdefault(group, []).append(option)
    return [
        f"{'' if group in defaults() else '+'}{group}={found[0] if not is_many(group) else '[' + ','.join(found) + ']'}"
        for group, found in chosen.items()
    ]


def config_of(names: Sequence[str], *overrides: str) -> dict[str, Any]:
    """The resolved config of a small run with some options."""
    return copy.deepcopy(_composed(tuple(names), *overrides))


@cache
def _composed(names: tuple[str, ...], *overrides: str) -> dict[str, Any]:
    small = list(SMALL)
    if any(name.startswith("optimizer/") for name in names):
        small = [word for word in small if not word.startswith("optimizer")]
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
    for parameter, held in getattr(plugin_class(name), "parameters", {}).items():
        if held.words == RUN_FOLDER and node[parameter] is None:
            node[parameter] = str(TRAINED)


def merged_config(names: Sequence[str]) -> dict[str, Any]:
    """What `config_of` gives, put together from the configs of each option: composing takes as long as a short training."""
    config = config_of([])
    for name in names:
        group, option = name.split("/")
        node = config_of([name])[group]
        if is_many(group):
            config.setdefault(group, {})[option] = node[option]
        else:
            config[group] = node
    return config


@cache
def with_companions(name: str) -> tuple[str, ...]:
    """The option, with what its own refusal says that it needs: mc_dropout alone asks for +regularizer=dropout."""
    try:
        build(config_of([name]))
    except RecipeError as error:
        needed = re.findall(r"\+(\w+)=(\w+)", str(error))
        if not needed:
            raise
        return (name, *("/".join(pair) for pair in needed[:1]))
    return (name,)


@cache
def digits() -> Any:
    """The digits, read once."""
    data = build_data(config_of([]))
    data.setup()
    return data


def plugin_class(name: str) -> type[Plugin] | None:
    """The plugin class behind an option, if it is one."""
    group, option = name.split("/")
    node = yaml.safe_load((CONF / group / f"{option}.yaml").read_text())
    node = node[option] if is_many(group) else node
    found = find_class(node["_target_"])
    return found if issubclass(found, Plugin) else None


def build(config: dict[str, Any], plugins: Sequence[Plugin] | None = None) -> RecipeModule:
    """The module of a config, with its plugins (or those given, in the order given)."""
    return make_module(config, digits(), build_plugins(config) if plugins is None else plugins)


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
    module = build(config, plugins)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    data = digits()
    loader = StepLoader(data.splits["train"], config["data"]["batch_size"], 0, module.parts, lambda: module.steps_done)
    keeper = CopyingKeeper(folder / "checkpoints", "val/acc", copy_at or 0)
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
