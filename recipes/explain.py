"""`explain=true`: what will happen in each step, in order, and which layers were added to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from plugins.base import Plugin, does_something, implementers
from recipes.build import build_model, technique_nodes
from recipes.data.base import Data
from recipes.module import RecipeModule
from recipes.results import print_lines

WHEN = (
    ("transform_batch", "batch      ", "once a step, drawn once"),
    ("around_pass", "weights    ", "around each forward and backward pass"),
    ("penalty", "loss       ", "added in each forward pass"),
    ("combine", "tasks      ", "losses of all tasks as one"),
    ("backward", "gradient   ", "its own backward pass"),
    ("transform_gradient", "gradient   ", "right before the update"),
    ("wrap_optimizer", "update     ", "around the optimizer"),
    ("after_step", "after      ", "right after the update"),
)
LATER = (
    ("evaluation_weights", "weights    ", "in place while evaluating and saving"),
    ("predict", "prediction ", "in place of the plain forward pass"),
    ("measure", "metrics    ", "measured beside loss and accuracy"),
    ("next_phase", "phase      ", "may ask for one more fit"),
)


def explain(console: Console, config: Mapping[str, Any], data: Data, module: RecipeModule) -> None:
    """Print the plan of a run."""
    values = parameters(config)
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())
    tasks = ", ".join(f"{task.name or 'y'} ({task.kind}, {task.outputs})" for task in data.tasks)
    print_lines(console, f"data       {name_of(config['data'])}: {sizes}; samples {data.shape}; targets {tasks}")
    assert module.setting is not None
    plain = build_model(config, data.shape, data.tasks[0].outputs, config["seed"])
    before, after = dict(plain.named_modules()), dict(module.model.named_modules())
    size = sum(parameter.numel() for parameter in module.model.parameters())
    print_lines(console, f"model      {name_of(config['model'])}: {size:,} parameters")
    for plugin in implementers(module.plugins, "transform_model"):
        print_lines(console, f"           {describe(plugin, values)}")
    seen = {id(inner) for inner in before.values()}
    added = [f"{name}: {inner}" for name, inner in after.items() if id(inner) not in seen and is_added(name, inner, before)]
    print_lines(console, "", "layers added to the model" if added else "no layers added to the model")
    print_lines(console, *(f"  {line}" for line in added))
    print_lines(console, "", f"each step  {data.batch_size} samples × {module.parts}, seed {config['seed']}")
    step = 0
    for method, label, when in WHEN:
        for plugin in implementers(module.plugins, method):
            step += 1
            print_lines(console, f"  {step}. {label}{describe(plugin, values)} [{when}]")
        if method == "around_pass":
            step += 1
            print_lines(console, f"  {step}. pass       forward, {name_of(config['loss'])} loss")
        if method == "penalty":
            step += 1
            print_lines(console, f"  {step}. pass       backward")
        if method == "wrap_optimizer":
            step += 1
            print_lines(
                console,
                f"  {step}. update     {config['optimizer']['_target_'].split('.')[-1]}, {option_values(config['optimizer'])}",
            )
    step += 1
    print_lines(console, f"  {step}. rate       {name_of(config['scheduler'])} {option_values(config['scheduler'])}".rstrip())
    print_lines(console, "", "validation and test")
    for method, label, when in LATER:
        for plugin in implementers(module.plugins, method):
            print_lines(console, f"  - {label}{describe(plugin, values)} [{when}]")
    shown = {plugin for method, *_ in (*WHEN, *LATER, ("transform_model",)) for plugin in implementers(module.plugins, method)}
    for plugin in module.plugins:
        if plugin not in shown and does_something(plugin):
            print_lines(console, f"  - watches    {describe(plugin, values)}")
    print_lines(
        console,
        f"  - best model by {next((p.monitor for p in reversed(module.plugins) if p.monitor), config['trainer']['monitor'] or 'val/acc')}",
    )


def is_added(name: str, inner: Any, before: Mapping[str, Any]) -> bool:
    """Whether a module of the transformed model has no counterpart of its class in the plain one."""
    if any(True for _ in inner.children()) and not hasattr(inner, "attached"):
        return False
    for prefix in ("", "model."):
        plain = name.removeprefix(prefix) if name.startswith(prefix) else name
        if plain in before and type(before[plain]) is type(inner):
            return False
    return True


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of each technique, by group/option."""
    values = {}
    for place, node in technique_nodes(config):
        group = place.partition(".")[0]
        values[f"{group}/{node['_target_'].split('.')[-2]}"] = option_values(node)
    return values


def option_values(node: Mapping[str, Any]) -> str:
    """Parameters as they are typed."""
    return " ".join(
        f"{name}={value}" for name, value in node.items() if name not in ("_target_", "no_decay") and value is not None
    )


def name_of(node: Mapping[str, Any]) -> str:
    """An option's name."""
    return str(node["_target_"]).split(".")[-2]


def describe(plugin: Plugin, values: Mapping[str, str]) -> str:
    """A plugin with its parameters and what it does."""
    first = (type(plugin).__doc__ or "").strip().splitlines()
    return f"{plugin.option} {values.get(plugin.state_key, '')}: {first[0] if first else ''}".replace(" :", ":")
