"""What a run prints at its end: its table, and lines that can be copied."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plugins.base import Task
from recipes.config.errors import printable
from recipes.config.invoked import as_typed
from recipes.config.quoting import typed
from recipes.config.run_files import CHECKPOINTS, LAST
from recipes.data.loaders import StepLoader
from recipes.data.targets import describe
from recipes.engine.checkpoint import load_checkpoint
from recipes.engine.module import RecipeModule
from recipes.engine.units import InTargetUnits
from recipes.launch.ranks import is_first_rank
from recipes.run.build import count_parameters
from recipes.run.limits import time_is_up, why_early
from recipes.run.pretrained import told
from recipes.store import history
from recipes.store.phase_results import phase_lines, trained_on_validation

ORDER = ("loss", "acc")


def table(result: Mapping[str, Any]) -> Table:
    """The metrics of a run: one row a metric, one column a split."""
    metrics = result["metrics"]
    splits = [split for split in ("train", "val", "test") if any(name.startswith(split + "/") for name in metrics)]
    names = list(dict.fromkeys(name.partition("/")[2] for name in metrics if name.partition("/")[0] in splits))
    names.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    shown = Table(title=None, header_style="bold")
    shown.add_column("metric")
    for split in splits:
        seen = split == "val" and trained_on_validation(result)
        shown.add_column("val, trained on" if seen else split, justify="right")
    for name in names:
        cells = [metrics.get(f"{split}/{name}") for split in splits]
        shown.add_row(Text(printable(name)), *("" if cell is None else f"{cell:.4f}" for cell in cells))
    return shown


def print_lines(console: Console, *lines: str) -> None:
    """Print without wrapping or markup, so that paths and commands can be copied."""
    for line in lines:
        console.print(as_typed(printable(line)), soft_wrap=True, markup=False, highlight=False)


def in_units(module: RecipeModule, task: Task) -> str:
    """How the numbers of a regression are learned, in a few words."""
    if task.kind != "regression":
        return ""
    units = module.model
    if not isinstance(units, InTargetUnits) or task.name not in units.places:
        return ", learned as given"
    mean, deviation = (numbers[units.places[task.name]] for numbers in (units.target_mean, units.target_deviation))
    return ", standardized" + (f" (mean {mean.item():.4g}, deviation {deviation.item():.4g})" if mean.numel() == 1 else "")


def history_lines(result: Mapping[str, Any]) -> list[str]:
    """What was changed on the way, as it is told beside a result."""
    return [f"history  {line}" for line in history.lines(result)] + apart(result)


def apart(result: Mapping[str, Any]) -> list[str]:
    """That a run is not what its command makes, and what becomes of that; nothing where it is."""
    return ["changed on the way: comparisons keep it apart from runs that were not"] * bool(history.resumed(result))


def shares(step_size: int, world: int, nodes: int, parts: int) -> list[str]:
    """What each of several devices does of a step, in a line."""
    if world == 1:
        return []
    machines = f" on {nodes} nodes" if nodes > 1 else ""
    cut = f" in {parts} parts" if parts > 1 else ""
    return [f"{world} devices{machines}: each step takes {step_size:,} samples, {step_size // world:,} on each{cut}"]


def show_end(console: Console, folder: Path, result: Mapping[str, Any], hints: Sequence[str], next_command: str) -> None:
    """What is printed when a run has ended: its table, where it lies, and what to type next.

    Args:
        console: quiet but on the first rank.
        folder: of the run.
        result: what `result.json` holds.
        hints: of the loggers, such as the command that syncs an offline run.
        next_command: for a run that has finished.
    """
    if result["status"] == "finished":
        console.print(table(result))
        print_lines(
            console,
            *(["stopped early: " + why_early(result["config"])] if result["stopped_early"] else []),
            *([time_is_up(result["config"], folder)] if result["ended_by"] == "max_time" else []),
            f"best step {result['best_step']} of {result['steps']}, {result['seconds']:.1f} s, "
            f"{result['samples_per_second']:,.0f} samples/s",
            *(f"happened {line}" for line in result.get("events", ())),
            f"folder   {folder}",
            *phase_lines(result),
            *history_lines(result),
            *(f"wandb    {hint}" for hint in hints),
            f"next     {next_command}",
        )
    elif result["status"] == "diverged":
        best = [phase["best_step"] for phase in result.get("phase_results", ()) if phase["metrics"]]
        kept = f"the best model is that of step {best[-1]}" if best else "no model is kept"
        happened = [f"happened {line}" for line in result.get("events", ())]
        print_lines(console, f"diverged at step {result['steps']}; {kept}", *happened, f"folder   {folder}")
        if is_first_rank():
            print(f"error: {result['error']}", file=sys.stderr)
    elif result["status"] == "pruned":
        print_lines(console, f"given up at step {result['pruned_at']}: {result['reason']}", f"folder   {folder}")
    else:
        last = folder / CHECKPOINTS / LAST
        saved = f"the state of step {saved_step(last)} is saved" if last.exists() else "no state was saved yet"
        print_lines(
            console,
            f"stopped by {result['stopped_by']} at step {result.get('steps', 0)}; {saved}",
            f"folder   {folder}",
            f"go on    python train.py {typed('resume', folder)}",
        )


def saved_step(checkpoint: Path) -> int:
    """The step from which a run would go on."""
    state = load_checkpoint(checkpoint)
    return int(state["recipe"]["phase"]["steps"] + state["global_step"])


def show_start(console: Console, module: RecipeModule, loader: StepLoader, trainer: L.Trainer) -> None:
    """What is printed when a run begins: its size, its targets, its devices, and what was decided."""
    assert module.setting is not None
    targets = "; ".join(f" {task.name or 'y'}: {describe(task)}{in_units(module, task)}" for task in module.setting.tasks)
    print_lines(
        console,
        f"{count_parameters(module):,} parameters, {len(loader.split):,} training samples, {len(loader)} steps an epoch, "
        f"on {trainer.strategy.root_device}",
        "target" + targets,
        *(f"data: {remark}" for remark in [loader.split.remark] if remark),
        *shares(loader.step_size, trainer.world_size, trainer.num_nodes, module.parts),
        *told(module),
        *(f"{plugin.state_key}: {remark}" for plugin in module.plugins for remark in plugin.remarks),
    )


def show_phase(console: Console, module: RecipeModule, loader: StepLoader, trainer: L.Trainer) -> None:
    """What is printed when a further phase of a run begins: on what it trains, and how far."""
    phase = module.phase
    seen = ", those of the validation among them" if phase.get("all_data") else ""
    below = phase.get("stop_below")
    until = f", until {below[0]} < {below[1]:.4g}" if below else ""
    print_lines(
        console,
        f"phase {phase['index'] + 1}, {phase['name']}: {len(loader.split):,} training samples{seen}, "
        f"{trainer.max_steps:,} steps{' at most' if below else ''}{until}",
    )
