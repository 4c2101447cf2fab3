"""A composed config becomes a run: trained, stopped, resumed, evaluated."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from plugins.base import Phase, Plugin, RecipeError, does_something
from recipes.build import build_data, build_loggers, build_module, build_plugins, load_module, load_run
from recipes.checkpoint import BestAndLast, StopOnSignal, Stopped, WholeFiles, load_checkpoint
from recipes.data.base import Data, EvaluationLoader, StepLoader
from recipes.explain import explain
from recipes.loggers import RunLogger
from recipes.module import RecipeModule
from recipes.progress import ProgressBar
from recipes.results import (
    environment,
    log_to,
    peak_memory,
    print_lines,
    quote,
    read_result,
    stop_logging,
    table,
    write_config,
    write_result,
)

log = logging.getLogger("recipes")


def train(config: dict[str, Any], folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Train what a resolved config describes and leave the result in `folder`; goes on with it where `resume` is set.

    Returns what `result.json` holds. Raises :class:`RecipeError` for the user's mistakes.
    """
    first_rank = rank_zero_only.rank == 0
    console = Console(quiet=not first_rank)
    set_up_process(config)
    plugins = build_plugins(config)  # bad values are told before any data is touched
    build_early_objects(config)
    data = build_data(config)
    data.setup()
    check_devices(config["trainer"])
    if config["explain"]:
        explain(console, config, data, make_module(config, data, plugins))
        return {"status": "explained"}
    resumed = config["resume"] is not None
    earlier = read_result(folder) if resumed else {}
    if first_rank and not resumed:
        write_config(folder, config, overrides)
    elif first_rank:
        write_config(folder, {**config, "resume": None}, resume_command(earlier, overrides))
    handler = log_to(folder)
    run = Run(config, folder, data, console, earlier, list(overrides))
    try:
        return run.go(resumed)
    finally:
        stop_logging(handler)


def resume_command(earlier: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The command of the whole run: that of its start, with what was changed on resuming."""
    changes = [override for override in overrides if not override.startswith("resume=")]
    return [*earlier.get("command", []), *(change for change in changes if change not in earlier.get("command", []))]


def set_up_process(config: Mapping[str, Any]) -> None:
    """Threads, determinism, and silence about what Lightning says to everybody."""
    trainer = config["trainer"]
    if trainer["num_threads"]:
        torch.set_num_threads(trainer["num_threads"])
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(config["seed"])  # for what draws outside of the owners' generators: third-party code
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`")


def build_early_objects(config: Mapping[str, Any]) -> None:
    """Try everything that needs no data, so that a bad value is told before data is read."""
    from recipes.build import build_loss, build_optimizer, instantiate

    build_loss(config)
    build_optimizer(config)
    instantiate(config["scheduler"])
    for name in ("accumulate_grad_batches", "log_every_n_steps"):
        if config["trainer"][name] < 1:
            raise RecipeError(f"trainer.{name} must be a whole number ≥ 1, got {config['trainer'][name]}")
    if config["max_epochs"] < 1 or config["max_steps"] < -1:
        raise RecipeError("max_epochs must be ≥ 1 and max_steps ≥ 0 (or -1 for no limit)")


def check_devices(trainer: Mapping[str, Any]) -> None:
    """Refuse a device that is not there."""
    wanted, count = trainer["accelerator"], trainer["devices"]
    there = {
        "gpu": torch.cuda.device_count() or int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if wanted in there and not there[wanted]:
        raise RecipeError(
            f"trainer.accelerator={wanted}: this machine has none that torch can use; type trainer.accelerator=cpu or auto"
        )
    if wanted not in {*there, "auto", "cpu", "tpu"}:
        raise RecipeError(f"trainer.accelerator must be auto, cpu, gpu, cuda, mps or tpu, got {wanted!r}")
    number = count if isinstance(count, int) else len(count) if isinstance(count, list) else 1
    if number < 1 and count not in (-1, "auto"):
        raise RecipeError(f"trainer.devices must be a whole number ≥ 1 or auto, got {count!r}")
    gpus = torch.cuda.device_count()
    if wanted in ("gpu", "cuda", "auto") and gpus and number > gpus:
        raise RecipeError(f"trainer.devices={count}: this machine has {gpus}; type trainer.devices={gpus} or less")


def make_module(config: Mapping[str, Any], data: Data, plugins: Sequence[Plugin], world: int = 1) -> RecipeModule:
    """The module with all plugins' changes."""
    if len(data.tasks) > 1 and not any(plugin.group == "multitask" for plugin in plugins):
        names = ", ".join(task.name for task in data.tasks)
        raise RecipeError(
            f"the data has several targets ({names}): add +multitask=equal to train them together, or name one in data.target"
        )
    module = build_module(config, data.shape, data.tasks[0].outputs)
    trainer = config["trainer"]
    module.build(
        plugins,
        data.setting(config["seed"], lambda folder: load_run(Path(folder))),
        precision=trainer["precision"],
        devices=world,
        batch_size=None if data.batch_size == "full" else int(data.batch_size),
        compiled=trainer["compile"],
    )
    return module


def techniques(config: Mapping[str, Any]) -> list[str]:
    """The names of what a run was asked to use: its techniques, its optimizer and its scheduler."""
    acting = sorted(plugin.option for plugin in build_plugins(config) if does_something(plugin))
    chosen = config.get("choices", {})
    rest = [str(chosen.get(group) or option_of(config[group])) for group in ("optimizer", "scheduler")]
    return [*acting, *(name for name in rest if name != "constant")]


def option_of(node: Mapping[str, Any]) -> str:
    """The name of an option from the class it stands for, where the config does not tell what was typed."""
    module, _, name = str(node["_target_"]).rpartition(".")
    return name.lower() if module.startswith("torch") else module.rpartition(".")[2]


class Run:
    """One run in one folder: its phases, its result, its end."""

    def __init__(
        self, config: dict[str, Any], folder: Path, data: Data, console: Console, earlier: dict[str, Any], command: list[str]
    ) -> None:
        self.config, self.folder, self.data, self.console = config, folder, data, console
        self.command = resume_command(earlier, command)
        self.techniques = techniques(config)
        self.result: dict[str, Any] = {"status": "running", "config": config, "command": self.command, "seed": config["seed"]}
        self.result |= {"techniques": self.techniques, "metrics": {}, **environment()}
        self.seconds = 0.0

    def go(self, resumed: bool) -> dict[str, Any]:
        """Train all phases, test, and write the result; what goes wrong is in the result too."""
        self.last = self.folder / "checkpoints" / "last.ckpt"
        start = self._start_of_resumed() if resumed else None
        facts = {
            "name": self.config["name"] or self.folder.name,
            "group": self.folder.parent.name if (self.folder.parent / "multirun.yaml").exists() else None,
            "tags": [*self.techniques, *self.config["tags"]],
            "notes": self.config["notes"],
            "config": self.config,
        }
        self.loggers: list[RunLogger] = build_loggers(self.config, self.folder, facts)
        self._write()
        try:
            with StopOnSignal() as stop:
                self.stop = stop
                self._train(start)
            self.result["status"] = "finished"
        except Stopped as stopped:
            self.result["status"] = "stopped"
            self.result["stopped_by"] = str(stopped)
        except BaseException as error:
            self.result["status"] = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            self.result["error"] = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.exception("the run failed") if not isinstance(error, (RecipeError, KeyboardInterrupt)) else None
            self._write()
            if not isinstance(error, KeyboardInterrupt):
                raise
        finally:
            hints = [hint for logger in self.loggers if (hint := logger.finish(self.result["status"]))]
        self._write()
        self._show(hints)
        return self.result

    def _start_of_resumed(self) -> dict[str, Any] | None:
        """The phase and state to go on from; None starts over, for a run that was stopped before its first checkpoint."""
        if not self.last.exists():
            log.warning("no checkpoint in %s: the run starts over", self.folder)
            return None
        return load_checkpoint(self.last)["recipe"]  # type: ignore[no-any-return]

    def _write(self) -> None:
        if rank_zero_only.rank == 0:
            write_result(self.folder, self.result)

    # ------------------------------------------------------------------ phases

    def _train(self, start: dict[str, Any] | None) -> None:
        phase = dict(start["phase"]) if start else {"index": 0, "steps": 0, "seconds": 0.0}
        module: RecipeModule | None = None
        while True:
            module = self._fit(phase, module, from_checkpoint=start is not None)
            start = None
            asked = [plugin.next_phase(self.result) for plugin in module.plugins]
            following = next((phase for phase in asked if phase is not None), None)
            if following is None:
                break
            phase = self._describe(following, phase, module)
        self._test(module)

    @staticmethod
    def _describe(following: Phase, before: Mapping[str, Any], module: RecipeModule) -> dict[str, Any]:
        described = asdict(following)
        described["stop_below"] = list(following.stop_below) if following.stop_below else None
        return {
            "index": before["index"] + 1,
            "steps": before["steps"] + module.steps_done,
            "seconds": before["seconds"],
            **described,
        }

    def _fit(self, phase: dict[str, Any], previous: RecipeModule | None, from_checkpoint: bool) -> RecipeModule:
        config, trainer_config = self.config, self.config["trainer"]
        # the techniques of the first phase decide what comes next; later phases train with fresh ones of them
        plugins = build_plugins(config)
        if phase["index"]:
            plugins = [plugin for plugin in plugins if plugin.group != "stopping"]
        world = trainer_config["devices"] * trainer_config["num_nodes"] if isinstance(trainer_config["devices"], int) else 1
        module = make_module(config, self.data, plugins, world)
        module.phase = phase
        if previous is not None and not phase.get("fresh", True):
            module.load_state_dict(previous.state_dict())
        train = self.data.splits["train"]
        if phase.get("all_data"):
            train = train + self.data.splits["val"]
        repeats = max((plugin.repeats for plugin in plugins), default=1)
        loader = StepLoader(train, self.data.batch_size, config["seed"], module.parts, lambda: module.steps_done, repeats)
        validation = EvaluationLoader(self.data.splits["val"])
        classification = any(task.kind == "classification" for task in self.data.tasks)
        # the last stage has the last word: early stopping ends training by its own metric
        chooser = next((plugin for plugin in reversed(module.plugins) if plugin.monitor), None)
        monitor = trainer_config["monitor"] or (chooser and chooser.monitor) or ("val/acc" if classification else "val/loss")
        if chooser and chooser.monitor != monitor:
            raise RecipeError(
                f"trainer.monitor={monitor} and {chooser.group}.monitor={chooser.monitor} choose different best models: "
                f"leave trainer.monitor out"
            )
        every = trainer_config["save_every_n_steps"] or 0
        keeper = BestAndLast(self.folder / "checkpoints", monitor, every, self.stop, chooser.min_delta if chooser else 0.0)
        trainer = make_trainer(
            config,
            self.folder,
            self.loggers,
            [*plugins, keeper, ProgressBar(self.console)] if trainer_config["progress"] else [*plugins, keeper],
            max_steps=phase.get("max_steps"),
        )
        if rank_zero_only.rank == 0 and not from_checkpoint and not phase["index"]:
            size = sum(parameter.numel() for parameter in module.model.parameters())
            print_lines(
                self.console,
                f"{size:,} parameters, {len(train):,} training samples, {len(loader)} steps an epoch, on {trainer.strategy.root_device}",
            )
        loader.device = validation.device = trainer.strategy.root_device
        if from_checkpoint:
            for logger in self.loggers:
                logger.rewind(phase["steps"] + int(load_checkpoint(self.last)["global_step"]))
        began, seconds_before = time.monotonic(), phase["seconds"]
        module.clock = lambda: seconds_before + time.monotonic() - began
        trainer.fit(module, loader, validation, ckpt_path=str(self.last) if from_checkpoint else None)
        phase["seconds"] = module.clock()
        if keeper.validated_step != module.steps_done:
            trainer.validate(module, validation, verbose=False)
        self._note(module, trainer, keeper, loader, phase)
        return module

    def _note(
        self, module: RecipeModule, trainer: L.Trainer, keeper: BestAndLast, loader: StepLoader, phase: dict[str, Any]
    ) -> None:
        steps = phase["steps"] + module.steps_done
        self.keeper, self.trainer = keeper, trainer
        self.result["metrics"] = {name: value for name, value in keeper.best_metrics.items() if name != "epoch"}
        self.result |= {
            "monitor": keeper.monitor,
            "best_step": phase["steps"] + (keeper.best_step or 0),
            "steps": steps,
            "epochs": module.steps_done / len(loader),
            "phases": phase["index"] + 1,
            "seconds": round(phase["seconds"], 3),
            "samples_per_second": round(steps * loader.step_size / max(phase["seconds"], 1e-9), 1),
            "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
            "peak_memory": peak_memory(module.device),
        }

    def _test(self, module: RecipeModule) -> None:
        """Test the weights that validated best; the test split has chosen nothing."""
        module.load_state_dict(load_checkpoint(self.keeper.best_path)["state_dict"])
        loader = EvaluationLoader(self.data.splits["test"])
        loader.device = self.trainer.strategy.root_device
        self.trainer.test(module, loader, verbose=False)
        self.result["metrics"] |= {name: value for name, value in module.metrics.items() if name.startswith("test/")}

    def _show(self, hints: Sequence[str]) -> None:
        where = quote(str(self.folder))
        if self.result["status"] == "finished":
            self.console.print(table(self.result))
            print_lines(
                self.console,
                f"best step {self.result['best_step']} of {self.result['steps']}, {self.result['seconds']:.1f} s, "
                f"{self.result['samples_per_second']:,.0f} samples/s",
                f"folder   {self.folder}",
                *(f"wandb    {hint}" for hint in hints),
                f"next     {self._next_command(where)}",
            )
        else:
            print_lines(
                self.console,
                f"stopped by {self.result.get('stopped_by', 'Ctrl-C')}; the state is saved",
                f"folder   {self.folder}",
                f"go on    python train.py resume={where}",
            )

    def _next_command(self, where: str) -> str:
        if self.techniques == ["standardize", "sgd"]:
            return "python train.py +regularizer=dropout optimizer=adam"
        return f"python evaluate.py {where}"


def make_trainer(
    config: Mapping[str, Any],
    folder: Path,
    loggers: Sequence[RunLogger],
    callbacks: Sequence[L.Callback],
    max_steps: int | None = None,
) -> L.Trainer:
    """Lightning's Trainer, with what the techniques ask of it."""
    options = config["trainer"]
    limit = max_steps if max_steps is not None else config["max_steps"]
    arguments: dict[str, Any] = {}
    if options["val_every_n_steps"]:
        arguments = {"val_check_interval": options["val_every_n_steps"], "check_val_every_n_epoch": None}
    for callback in callbacks:
        if isinstance(callback, Plugin):
            arguments |= callback.trainer_arguments()
    try:
        return L.Trainer(
            accelerator=options["accelerator"],
            devices=options["devices"],
            num_nodes=options["num_nodes"],
            strategy=options["strategy"],
            precision=options["precision"],
            deterministic=options["deterministic"],
            max_epochs=-1 if limit >= 0 else config["max_epochs"],
            max_steps=limit,
            logger=list(loggers),
            callbacks=list(callbacks),
            plugins=[WholeFiles()],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=options["log_every_n_steps"],
            use_distributed_sampler=False,
            inference_mode=False,  # attacks and other measures of a test batch take gradients
            **arguments,
        )
    except (ValueError, RuntimeError, TypeError, L.fabric.utilities.exceptions.MisconfigurationException) as error:
        raise RecipeError(f"trainer: {str(error).strip().splitlines()[0]}") from None


def evaluate(folder: Path, config: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Test a finished run on its test split, or with other data or another inference; returns the test metrics."""
    console = Console()
    set_up_process(config)
    plugins = build_plugins(config)
    data = build_data(config)
    data.setup()
    check_devices(config["trainer"])
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if not checkpoint.exists():
        raise RecipeError(
            f"{folder} has no checkpoints/best.ckpt: the run has not validated yet; type python train.py resume={folder}"
        )
    module = load_module(config, checkpoint, plugins)
    assert module.setting is not None
    if data.shape != module.setting.shape:
        raise RecipeError(f"the run was trained on samples of shape {module.setting.shape}, the data has {data.shape}")
    for task in data.tasks:
        known = {known.name: known for known in module.setting.tasks}
        if task.name not in known or task.outputs > known[task.name].outputs:
            raise RecipeError(
                f"the data's target {task.name or 'y'} with {task.outputs} classes is not what the run was trained on"
            )
    trainer = make_trainer(config, folder, [], plugins)
    loader = EvaluationLoader(data.splits["test"])
    loader.device = trainer.strategy.root_device
    trainer.test(module, loader, verbose=False)
    metrics = {name: value for name, value in module.metrics.items() if name.startswith("test/")}
    result = {"folder": str(folder), "changes": list(changes), "metrics": metrics}
    console.print(table(result))
    print_lines(console, f"folder   {folder}")
    return result
