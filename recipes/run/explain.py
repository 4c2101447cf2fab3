"""`explain=true`: what will happen in each step, in order, and which layers were added to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from torch import nn

from plugins.base import HOOKS, Option, Stage, does_something, implementers
from plugins.hooks import END, EVALUATION, STEP
from plugins.inputs import described
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.choices import choices
from recipes.data.base import Data
from recipes.data.targets import describe as describe_target
from recipes.engine.module import RecipeModule
from recipes.run.build import build_model, technique_nodes
from recipes.run.pretrained import told, without_weights
from recipes.run.terminal import print_lines

OWN = (  # what the engine does itself in a step: after which hook, a word in front of it, and what it is
    ("around_pass", "pass", "forward: {loss} loss"),
    ("penalty", "pass", "backward"),
    ("transform_gradient", "update", "{optimizer}"),
    ("after_step", "rate", "{scheduler}"),
)


def explain(console: Console, config: Mapping[str, Any], data: Data, module: RecipeModule, world: int = 1) -> None:
    """Print the plan of a run."""
    names, values = choices(Catalogue(installed_folders()), config), parameters(config)
    own = {group: " ".join([*names[group], option_values(config[group])]) for group in ("loss", "optimizer", "scheduler")}
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())
    tasks = ", ".join(f"{task.name or 'y'} ({describe_target(task)})" for task in data.tasks)
    size = sum(parameter.numel() for parameter in module.model.parameters())
    makers = implementers(module.plugins, "transform_model")
    added = list(
        added_layers(
            build_model(without_weights(config), data.shape, data.tasks[0].outputs, config["seed"], data.tasks[0].shape),
            module.model,
        )
    )
    print_lines(
        console,
        f"data    {names['data'][0]}: {sizes}; samples {described(data.shape)}; targets {tasks}",
        f"model   {names['model'][0]}: {size:,} parameters",
        *(f"        {describe(plugin, values)}" for plugin in makers if plugin.stage < Stage.SAMPLING),
        f"        layers added: {len(added) or 'none'}",
        *(f"          {line}" for line in added),
        *(f"        {line}" for line in told(module)),
        *(f"        {plugin.option}: {remark}" for plugin in module.plugins for remark in plugin.remarks),
        "",
        f"each step of {data.batch_size} samples"
        + (f" × {module.parts} parts" if module.parts > 1 else "")
        + (f" over {world} processes" if world > 1 else "")
        + (", each of which keeps a part of the weights" if config["trainer"]["strategy"] == "fsdp" else ""),
    )
    shown, step = set(makers), 0
    for hook in (hook for hook in HOOKS if hook.moment == STEP):
        acting = implementers(module.options, hook.name) if hook.label else []
        if hook.name == "after_step":  # a wrapper has done its work; it only logs here
            acting = [option for option in acting if option.stage != Stage.WRAPPER]
        shown |= set(acting)
        lines = [(hook.label, f"{describe(option, values)} [{hook.told}]") for option in acting]
        lines += [(word, line.format(**own).strip()) for after, word, line in OWN if after == hook.name]
        for label, line in lines:
            step += 1
            print_lines(console, f"{step:4}. {label:10} {line}")
    print_lines(console, "", "validation and test")
    for hook in (hook for hook in HOOKS if hook.moment in (EVALUATION, END) and hook.label):
        for option in implementers(module.options, hook.name):
            shown.add(option)
            print_lines(console, f"      {hook.label:10} {describe(option, values)} [{hook.told}]")
    for option, node in (config.get("callback") or {}).items():
        name = str(node["_target_"]).rpartition(".")[2]
        print_lines(console, f"      {'callback':10} {option} {option_values(node)}".rstrip() + f": {name}")
    for plugin in module.plugins:
        if plugin not in shown and does_something(plugin):
            print_lines(console, f"      {'watches':10} {describe(plugin, values)}")
    for plugin in module.left_out:
        print_lines(console, f"      {'off':10} {describe(plugin, values)}")


def added_layers(plain: nn.Module, model: nn.Module) -> Iterator[str]:
    """The layers of a transformed model that the plain one does not have, by name."""
    before = {name: type(layer) for name, layer in plain.named_modules()}
    for name, layer in model.named_modules():
        parts = name.split(".") if name else []
        while ".".join(parts) not in before and parts[:1] == ["model"]:  # below a layer that was put in front
            parts = parts[1:]
        if before.get(".".join(parts)) is type(layer):
            continue
        if not any(True for _ in layer.children()):
            yield f"{name}: {layer}"
        elif own := [name for name, _ in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))]:
            yield f"{name or 'in front'}: {type(layer).__name__}({', '.join(own)})"


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of each technique, by group/option."""
    return {
        f"{place.partition('.')[0]}/{node['_target_'].split('.')[-2]}": option_values(node)
        for place, node in technique_nodes(config)
    }


def option_values(node: Mapping[str, Any]) -> str:
    """Parameters as they are typed."""
    return " ".join(f"{name}={value}" for name, value in node.items() if name != "_target_" and value not in (None, []))


def describe(plugin: Option, values: Mapping[str, str]) -> str:
    """A plugin with its parameters and what it does."""
    first = (type(plugin).__doc__ or "").strip().split("\n")[0]
    return f"{plugin.option} {values.get(plugin.state_key, '')}".strip() + f": {first}"
