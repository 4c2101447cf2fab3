"""A finished run is tested again: on its test split, on other data, with another inference or attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from plugins.base import RecipeError, Task
from recipes.config.changing import shown_otherwise, trained_data
from recipes.data.loaders import EvaluationLoader
from recipes.data.targets import describe
from recipes.engine.checkpoint import load_checkpoint
from recipes.run.build import build_data, build_plugins, load_module, on_one_device
from recipes.run.passing import expect_shape
from recipes.run.preflight import check_devices
from recipes.run.process import set_up_process
from recipes.run.terminal import print_lines, table
from recipes.run.trainer import make_trainer
from recipes.store.folder import best_checkpoint

SOURCE = ("path", "root", "name", "labels", "input", "target")  # keys of `data` that say which data it is


def evaluate(folder: Path, config: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Test a finished run and print what came of it; returns the metrics."""
    result = measure(folder, config, changes)
    console = Console()
    console.print(table(result))
    print_lines(console, f"samples  {result['samples']:,}: {result['which']}", *result["remarks"], f"folder   {folder}")
    return result


def measure(folder: Path, config: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Test a finished run on its test split, or with other data, another inference or another attack, on one device.

    Returns:
        The metrics, what they were measured with (`rulers`), on which samples (`samples`, `which`), and what techniques say (`remarks`).
    """
    config = on_one_device(config)
    set_up_process(config)
    plugins = build_plugins(config)
    data = build_data(config)
    check_devices(config["trainer"])
    checkpoint = best_checkpoint(folder)
    module = load_module(config, checkpoint, plugins)
    seen = load_checkpoint(checkpoint)["recipe"]
    elsewhere = any(word.partition("=")[0] in ("data", *(f"data.{name}" for name in SOURCE)) for word in changes)
    data.load_state(seen.get("data_state", {}))
    shown = shown_otherwise(trained_data(folder), config["data"])
    which = data.setup_test(seen.get("data") or ("" if elsewhere else None), seen.get("content"), shown)
    assert module.setting is not None
    expect_shape("the run", module.model, module.setting.shape, data.shape, config["data"])
    trained = {task.name: task for task in module.setting.tasks}
    for task in data.tasks:
        known = trained.get(task.name)
        if known is None or (task.kind, task.shape) != (known.kind, known.shape) or not _fits(task, known):
            there = ", ".join(map(describe, module.setting.tasks))
            raise RecipeError(f"the run was trained on {there}, the data has {describe(task)}")
        if task.names != known.names:
            raise RecipeError(f"the run was trained on classes {', '.join(known.names)}, the data has {', '.join(task.names)}")
    trainer = make_trainer(config, folder, [], plugins)
    loader = EvaluationLoader(data.splits["test"], data.eval_batch_size)
    loader.device = trainer.strategy.root_device
    trainer.test(module, loader, verbose=False)
    metrics = {name: value for name, value in module.metrics.items() if name.startswith("test/")}
    samples = len(data.splits["test"])
    remarks = [f"{plugin.state_key}: {remark}" for plugin in module.plugins for remark in plugin.remarks]
    result = {"folder": str(folder), "changes": list(changes), "metrics": metrics, "samples": samples, "which": which}
    return {**result, "remarks": remarks, "rulers": dict(module.rulers), "config": config}


def _fits(task: Task, known: Task) -> bool:
    """Whether there are as many labels or numbers as the run knows, and no class that it does not know."""
    if task.kind == "classification":
        return task.outputs <= known.outputs
    one, other = (each.outputs // max(1, len(each.quantiles)) for each in (task, known))
    return one == other
