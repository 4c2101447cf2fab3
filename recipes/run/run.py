"""A composed config becomes a run: trained, stopped, resumed, evaluated."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console

from plugins.base import (
    MODES,
    Diverged,
    Phase,
    Plugin,
    Task,
    declared_directions,
    does_something,
    expect,
    expect_choice,
    expect_count,
)
from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.choices import choices
from recipes.config.duration import seconds_of
from recipes.config.effect import words_with_effect
from recipes.config.quoting import path_word, typed
from recipes.data.base import Data
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.targets import describe
from recipes.engine.checkpoint import BestAndLast, WholeFiles, load_checkpoint
from recipes.engine.divergence import expect_finite, expect_finite_loss
from recipes.engine.logger import Deferred, RunLogger
from recipes.engine.module import RecipeModule
from recipes.engine.sharding import make_strategy, put_together
from recipes.engine.stop import StopOnSignal, Stopped
from recipes.engine.units import MEAN, InTargetUnits
from recipes.launch import failures, ranks
from recipes.launch.ranks import is_first_rank
from recipes.run import memory
from recipes.run.advice import with_a_technique
from recipes.run.build import build_callbacks, build_data, build_loggers, build_module, build_plugins, load_module, load_run
from recipes.run.changes import check_changes
from recipes.run.cluster import cluster_environment
from recipes.run.explain import explain
from recipes.run.limits import check_limit, goes_further, time_is_up, told_finished, why_early
from recipes.run.logs import Journal, log_to
from recipes.run.monitor import check_monitors, choose_monitor, direction_of
from recipes.run.pictures import draw_pictures
from recipes.run.progress import ProgressBar
from recipes.run.provenance import environment, peak_memory
from recipes.run.terminal import print_lines, table
from recipes.run.time_limit import TimeLimit
from recipes.store import history
from recipes.store.claim import remove_parts, remove_run
from recipes.store.files import hold
from recipes.store.folder import (
    CONFUSION,
    HISTOGRAMS,
    PICTURES,
    command_line,
    first_line,
    read_result,
    write_config,
    write_confusion,
    write_result,
)
from recipes.store.plan import Plan, sweep_of
from recipes.store.shapes import check_records

log = logging.getLogger("recipes")
SOURCE = ("path", "root", "name", "input", "target")  # keys of `data` that say which data it is
SMALL_MODEL = 100_000  # parameters


def train(config: dict[str, Any], folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Train what a resolved config describes and leave the result in `folder`; goes on with it where `resume` is set.

    Returns what `result.json` holds. Raises :class:`RecipeError` for the user's mistakes.
    """
    console = Console(quiet=not is_first_rank())
    resumed, replaces = config["resume"] is not None, config["overwrite"]
    config = {**config, "resume": None, "overwrite": False}
    earlier = read_result(folder) if resumed else {}
    if earlier.get("status") == "finished" and not goes_further(config, earlier):
        console.print(table(earlier))
        print_lines(console, *history_lines(earlier), *told_finished(earlier, folder, overrides))
        return earlier
    expect_not_diverged(config, earlier, folder)
    plugins = build_plugins(config)  # bad values are told before any data is touched
    callbacks = build_callbacks(config)
    build_early_objects(config)
    set_up_process(config)
    data = build_data(config)
    data.setup()
    check_devices(config["trainer"])
    world = world_size(config["trainer"])
    module = make_module(config, data, plugins, world)  # so are wrong combinations
    if config["trainer"]["num_threads"] is None and count_parameters(module) < SMALL_MODEL:
        torch.set_num_threads(1)  # several threads wait for each other longer than a small model takes
    StepLoader(data.splits["train"], data.batch_size, config["seed"], module.parts, world=world)
    make_trainer(config, folder, [], [*plugins, *callbacks])
    check_monitors(
        config,
        data,
        module.plugins,
        lambda other: make_module(other, data, build_plugins(other)),
        lambda other, callbacks: make_trainer(other, folder, [], callbacks),
    )
    if config["explain"]:
        explain(console, config, data, module, world)
        if resumed:
            with log_to(folder, wait=True) as journal:
                Run(config, folder, data, console, earlier, resume_command(earlier, overrides), module, journal).explain()
        return {"status": "explained"}
    command = resume_command(earlier, overrides)
    with hold_folder(folder), log_to(folder, wait=resumed or replaces) as journal:
        result = Run(config, folder, data, console, earlier, command, module, journal, replaces).go(resumed)
    if dist.is_initialized():
        dist.destroy_process_group()  # its threads would end the process with an abort
    return result


def expect_not_diverged(config: Mapping[str, Any], earlier: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run that has diverged: it would diverge again, unless in another precision."""
    if earlier.get("status") != "diverged" or config["trainer"]["precision"] != earlier["config"]["trainer"]["precision"]:
        return
    rate = config["optimizer"].get("lr")
    lower = (
        [f"optimizer.lr={rate / 10:g}"] if isinstance(rate, int | float) and not isinstance(rate, bool) else ["+clipping=norm"]
    )
    words = [word for word in earlier.get("command", []) if not word.startswith(("optimizer.lr=", "hydra.run.dir="))]
    raise RecipeError(
        f"{folder} has diverged at step {earlier.get('steps', 0)} and would diverge again: start a new run with other words, such "
        f"as {command_line([*words, *lower])}"
    )


def hold_folder(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of a run's folder until this one ends; the first rank does so for all."""
    return hold(folder / "train.log", f"trains in {folder}") if is_first_rank() else nullcontext()


def count_parameters(module: RecipeModule) -> int:
    """The number of numbers that are trained or could be."""
    return sum(parameter.numel() for parameter in module.model.parameters())


def resume_command(earlier: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The command of the whole run: that of its start, with what was changed on resuming."""
    changes = [word for word in overrides if not word.startswith(("resume=", "overwrite="))]
    changed = {word.partition("=")[0].lstrip("+") for word in changes}

    def replaced(word: str) -> bool:
        """A value of a group goes with the option that had it: `trainer=ddp` leaves nothing of an earlier `trainer.devices=4`."""
        key = word.partition("=")[0].lstrip("+")
        return key in changed or any(key.startswith(f"{group}.") for group in changed)

    return [*(word for word in earlier.get("command", []) if not replaced(word)), *changes]


def set_up_process(config: Mapping[str, Any]) -> None:
    """Threads, determinism, and silence about what Lightning says to everybody."""
    trainer = config["trainer"]
    if trainer["num_threads"]:
        torch.set_num_threads(trainer["num_threads"])
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    set_matmul_precision(trainer["matmul_precision"])
    torch.manual_seed(config["seed"])  # for what draws outside of the owners' generators: third-party code
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
    warnings.filterwarnings("ignore", message=".*LeafSpec")
    warnings.filterwarnings("ignore", message=".*`srun` command is available")  # as on every login node of a cluster
    warnings.filterwarnings("ignore", message=".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`")


def set_matmul_precision(precision: str) -> None:
    """How exactly numbers of 32 bits are multiplied: "highest" keeps all bits, the others let GPUs round what goes in (TF32).

    It holds for convolutions too, which torch by itself always lets round.
    """
    expect_choice("trainer.matmul_precision", precision, ("highest", "high", "medium"))
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"


def build_early_objects(config: Mapping[str, Any]) -> None:
    """Try everything that needs no data, so that a bad value is told before data is read."""
    from recipes.run.build import build_loss, build_optimizer, instantiate

    build_loss(config)
    build_optimizer(config)
    try:
        instantiate(config["scheduler"])
    except RecipeError as error:
        raise RecipeError(f"scheduler: {error}") from None
    trainer = config["trainer"]
    for name in ("accumulate_grad_batches", "log_every_n_steps", "num_nodes"):
        expect_count(f"trainer.{name}", trainer[name])
    expect_count("trainer.save_every_n_steps", trainer["save_every_n_steps"], 0)
    for name in ("val_every_n_steps", "num_threads"):
        if trainer[name] is not None:
            expect_count(f"trainer.{name}", trainer[name])
    expect_choice("trainer.mode", trainer.get("mode"), (*MODES, None))
    expect(isinstance(trainer["monitor"], str | None), "trainer.monitor", "the name of a metric", trainer["monitor"])
    if config["max_epochs"] < 1 or config["max_steps"] < -1:
        raise RecipeError("max_epochs must be ≥ 1 and max_steps ≥ 0 (or -1 for no limit)")


def world_size(trainer: Mapping[str, Any]) -> int:
    """The number of processes that train together."""
    return int(ranks.devices_here(trainer) * trainer["num_nodes"])


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
    if trainer["sync_batchnorm"] and (wanted in ("cpu", "mps") or not there["cuda"]):
        raise RecipeError(
            "trainer.sync_batchnorm=true: torch joins the samples of CUDA GPUs only; leave it out, or take larger batches"
        )
    number = count if isinstance(count, int) else len(count) if isinstance(count, list) else 1
    if number < 1 and count not in (-1, "auto"):
        raise RecipeError(f"trainer.devices must be a whole number ≥ 1 or auto, got {count!r}")
    gpus = torch.cuda.device_count()
    if count == -1 and (wanted == "cpu" or (wanted == "auto" and not gpus)):
        raise RecipeError(
            "trainer.devices=-1 means all GPUs, and there is none; for processes on the CPU type trainer.devices=2"
        )
    if any(way in str(trainer["strategy"]) for way in ("spawn", "fork", "notebook")):
        raise RecipeError(
            f"trainer.strategy={trainer['strategy']} would train in processes of which nothing comes back: type trainer=ddp"
        )
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
    module.data_seen, module.data_content = data.fingerprint, data.content
    trainer = config["trainer"]
    module.build(
        plugins,
        data.setting(config["seed"], lambda folder: load_run(Path(folder))),
        precision=trainer["precision"],
        devices=world,
        batch_size=None if data.batch_size == "full" else int(data.batch_size),
        compiled=trainer["compile"],
        sharded=trainer["strategy"] == "fsdp",
    )
    return module


def techniques(chosen: Mapping[str, Sequence[str]], plugins: Sequence[Plugin]) -> list[str]:
    """The names of what a run was asked to use, of all options: its techniques, its optimizer, its scheduler and its callbacks."""
    acting = sorted(plugin.option for plugin in plugins if does_something(plugin))
    schedule = [name for name in chosen["scheduler"] if name != "constant"]
    return [*acting, *chosen["optimizer"], *schedule, *sorted(chosen.get("callback", []))]


class Run:
    """One run in one folder: its phases, its result, its end.

    A run that is resumed changes nothing in its folder before it has made a new step: what it cannot go on with, such as a
    checkpoint that does not load, leaves the folder as it was.
    """

    def __init__(
        self,
        config: dict[str, Any],
        folder: Path,
        data: Data,
        console: Console,
        earlier: dict[str, Any],
        command: list[str],
        module: RecipeModule,
        journal: Journal,
        replaces: bool = False,
    ) -> None:
        self.config, self.folder, self.data, self.console, self.module = config, folder, data, console, module
        self.journal, self.replaces, self.begun = journal, replaces, False
        self.directions = declared_directions(module.plugins)
        if config["trainer"].get("mode"):  # of the metric that chooses
            monitor, _ = choose_monitor(config, module.plugins, data.tasks)
            self.directions[monitor.partition("/")[2]] = config["trainer"]["mode"]
        self.alone = all(path.name == "train.log" for path in folder.glob("*"))  # nobody has put anything there
        chosen = choices(Catalogue(installed_folders()), config, command)
        self.command, self.techniques = command, techniques(chosen, module.plugins)
        self.result: dict[str, Any] = {"status": "running", "config": config, "command": command, "seed": config["seed"]}
        self.result["matmul_precision"] = torch.get_float32_matmul_precision()
        self.result |= {"techniques": self.techniques, "metrics": earlier.get("metrics", {}), **environment()}
        self.result |= {"choices": chosen, "data_content": data.content}
        train, world = data.splits["train"], world_size(config["trainer"])
        loader = StepLoader(train, data.batch_size, config["seed"], module.parts, world=world)
        self.result |= {"steps_an_epoch": len(loader), "samples_per_step": loader.step_size}
        self.result["history"] = [history.entry(self.result)]
        self.last, self.earlier = folder / "checkpoints" / "last.ckpt", earlier
        self.logger = Deferred()
        self.time = TimeLimit(None if config["max_time"] is None else seconds_of("max_time", config["max_time"]))

    def explain(self) -> None:
        """Tell from where a run that is resumed would go on, and with what that is new; refuse what would be refused then."""
        start = self._start_of_resumed()
        step = start["phase"]["steps"] + start["step"] if start else 0
        print_lines(self.console, "", f"goes on from step {step}", *history_lines(self.result))

    def go(self, resumed: bool) -> dict[str, Any]:
        """Train all phases, test, and write the result; what goes wrong is in the result too."""
        self.resumed, self.start = resumed, self._start_of_resumed() if resumed else None
        hints: list[str] = []
        nothing_done = False
        log.info("%s: %s", "resumed" if self.start else "started", command_line(self.command))
        try:
            with StopOnSignal() as self.stop:
                if not resumed:
                    self._begin()
                with memory.told(self.config):
                    self._train(self.start)
            self.result["status"] = "finished"
        except Stopped as stopped:
            self.result |= {"status": "stopped", "stopped_by": str(stopped)}
        except Diverged as diverged:
            self._begin()
            self.result |= {"status": "diverged", "error": first_line(diverged)}
            log.error("%s", diverged)
        except BaseException as error:
            self.result |= {"status": "failed", "error": first_line(error)}
            mistake = isinstance(error, RecipeError)
            # one of several ranks leaves its traceback when it ends
            log.error("%s", error if mistake else "the run failed", exc_info=not mistake and ranks.world() == 1)
            self._write()
            nothing_done = mistake and not self.module.steps_done and not self.result.get("steps")
            raise
        finally:
            hints += [hint for logger in self.logger.loggers if (hint := logger.finish(self.result))]
            if nothing_done and self.alone and is_first_rank():
                remove_run(self.folder)
        self._write()
        log.info("%s after %s steps: %s", self.result["status"], self.result.get("steps", 0), self.result["metrics"])
        self._show(hints)
        return self.result

    def _begin(self) -> None:
        """Write to the folder from now on."""
        if self.begun:
            return
        self.begun = True
        try:
            self._write()
        except RecipeError:  # the disk is full: what was there is still there
            self.begun = False
            raise
        if is_first_rank():
            if self.replaces:
                remove_run(self.folder, keep=("result.json", "train.log"))
                os.truncate(self.folder / "train.log", 0)
            remove_parts(self.folder)
            for outdated in (CONFUSION,) if self.start else (CONFUSION, HISTOGRAMS, "metrics.csv"):
                (self.folder / outdated).unlink(missing_ok=True)
            # after the result: whoever finds a config finds a run
            write_config(self.folder, self.config, self.command, history.commands(self.result))
        self.journal.pass_on()
        loggers = build_loggers(self.config, self.folder, self._facts())
        if self.start:
            self.logger.start(loggers, self.start["phase"]["steps"] + self.start["step"], self.start["logged"])
        else:
            self.logger.start(loggers)
        for logger in self.logger.loggers:
            self.result |= logger.facts()
        self._write()

    def _facts(self) -> dict[str, Any]:
        """What a logger tells about the run."""
        folder, plan = sweep_of(self.folder) or (None, None)
        return {
            "name": self.config["name"],
            "recipe": self._recipe(plan) + (f" resumed: {changed}" if (changed := history.resumed(self.result)) else ""),
            "group": folder.name if folder else None,
            "tags": [*self.techniques, *map(str, self.config["tags"])],
            "notes": self.config["notes"],
            "config": self.config,
            "directions": self.directions,
        }

    def _recipe(self, plan: Plan | None) -> str:
        """The words that set the run apart, seeds aside: from the defaults or, in a sweep, from its other runs."""
        words = words_with_effect(self.command)
        if plan is None:
            return " ".join(words) or "defaults"
        # a search adds jobs as it goes on, so a word is that of all only if the sweep was started with it
        everywhere = [{word.lower() for word in each} for each in (plan.words, *plan.jobs.values())]
        apart = [word for word in words if any(word.lower() not in each for each in everywhere)]
        return " ".join(apart or words) or "defaults"

    def _start_of_resumed(self) -> dict[str, Any] | None:
        """Where to go on from; None starts over, for a run that was stopped before its first checkpoint."""
        check_records(self.folder)
        if not self.last.exists():
            if self.earlier.get("status") == "finished" and self.earlier.get("steps") != 0:  # no step leaves no state
                raise RecipeError(f"{self.last} is not there, so the run cannot go on: start a new one with its words")
            log.warning("no checkpoint in %s: the run starts over", self.folder)
            return None
        checkpoint = load_checkpoint(self.last)
        recipe, step = checkpoint["recipe"], int(checkpoint["global_step"])
        if recipe.get("data", self.module.data_seen) != self.module.data_seen:
            moved = {name: value for name in ("path", "root") if (value := self.config["data"].get(name))}
            place = " ".join(f"data.{name}={value}" for name, value in moved.items())
            raise RecipeError(
                f"{place or 'the data'} has other content than what the run was trained on: name the data as it was, or start "
                f"a new run"
            )
        if (f"model.{MEAN}" in checkpoint["state_dict"]) != isinstance(self.module.model, InTargetUnits):
            raise RecipeError(
                f"{self.last} is of a run that learned its targets in other units: start a new run with its words"
            )
        done = recipe["phase"]["steps"] + step
        check_changes(self.earlier, self.result, done)
        check_limit(self.config, self.earlier, recipe, step, self.result["steps_an_epoch"])
        self.result["history"] = history.go_on(self.earlier, self.result, done)
        at, names = recipe.get("logged") or (None, None)  # older checkpoints do not tell
        logged = None if at is None else names if at == recipe["phase"]["steps"] + step else []
        return {"phase": recipe["phase"], "step": step, "logged": logged}

    def _write(self) -> None:
        if is_first_rank() and self.begun:
            write_result(self.folder, self.result)

    # ------------------------------------------------------------------ phases

    def _train(self, start: dict[str, Any] | None) -> None:
        phase = dict(start["phase"]) if start else {"index": 0, "steps": 0, "seconds": 0.0}
        module: RecipeModule | None = None
        while True:
            module = self._fit(phase, module, start)
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

    def _fit(self, phase: dict[str, Any], previous: RecipeModule | None, start: dict[str, Any] | None) -> RecipeModule:
        config, trainer_config = self.config, self.config["trainer"]
        module = self.module
        if phase["index"]:  # the techniques of the first phase decide what comes next; later phases train with fresh ones
            plugins = [plugin for plugin in build_plugins(config) if plugin.group != "stopping"]
            module = make_module(config, self.data, plugins, world_size(trainer_config))
        plugins = module.plugins
        module.phase = dict(phase)
        if previous is not None:
            module.recorder.logged = previous.recorder.logged
        if previous is not None and not phase.get("fresh", True):
            module.load_state_dict(put_together(previous.state_dict()))
        train = self.data.splits["train"]
        if phase.get("all_data"):
            train = train + self.data.splits["val"]
        repeats = max((plugin.repeats for plugin in plugins), default=1)
        world = world_size(trainer_config)
        loader = StepLoader(
            train, self.data.batch_size, config["seed"], module.parts, lambda: module.steps_done, repeats, world
        )
        validation = EvaluationLoader(self.data.splits["val"])
        monitor, chooser = choose_monitor(config, plugins, self.data.tasks)
        every = trainer_config["save_every_n_steps"] or 0
        keeper = BestAndLast(
            self.folder / "checkpoints",
            monitor,
            every,
            self.stop,
            chooser.min_delta if chooser else 0.0,
            latest=bool(phase.get("all_data")),
            larger=direction_of(config, plugins, self.data.tasks),
        )
        if self.resumed and not self.begun:
            keeper.saved_step = 0  # or where the checkpoint was saved: there is nothing new before the first step
        callbacks = [*plugins, *build_callbacks(config), AfterStep(self._begin), self.time, keeper]
        if phase.get("stop_below"):
            callbacks.append(StopBelow(*phase["stop_below"]))
        if trainer_config["progress"]:
            callbacks.append(ProgressBar(self.console))
        trainer = make_trainer(config, self.folder, [self.logger], callbacks, max_steps=phase.get("max_steps"))
        if start is None and not phase["index"]:
            size = sum(parameter.numel() for parameter in module.model.parameters())
            print_lines(
                self.console,
                f"{size:,} parameters, {len(train):,} training samples, {len(loader)} steps an epoch, on {trainer.strategy.root_device}",
                "target"
                + "; ".join(f" {task.name or 'y'}: {describe(task)}{in_units(module, task)}" for task in self.data.tasks),
                *shares(loader.step_size, world, trainer_config["num_nodes"], module.parts),
                *(f"{plugin.state_key}: {remark}" for plugin in plugins for remark in plugin.remarks),
            )
        loader.device = validation.device = trainer.strategy.root_device
        if start is not None:
            print_lines(self.console, f"going on from step {phase['steps'] + start['step']}", *history_lines(self.result))
        elif not phase["index"] and is_first_rank():
            draw_pictures(module, self.folder / PICTURES)
        self.module, self.trainer, self.keeper = module, trainer, keeper
        try:
            trainer.fit(module, loader, validation, ckpt_path=None if start is None else str(self.last))
        except (MisconfigurationException, ModuleNotFoundError) as error:
            raise RecipeError(f"trainer: {first_line(error)}") from None
        except Exception as error:
            if start is None or self.begun or not is_of_content(error):
                raise
            log.info("what came of the checkpoint", exc_info=True)
            raise RecipeError(f"{self.last} does not fit the run and cannot be gone on with: {first_line(error)}") from error
        finally:
            phase["seconds"] = module.seconds
            self._note(module, keeper, loader, phase)
        self._begin()
        if not keeper.ended:  # all was trained before the run was resumed: Lightning then leaves the end of training out
            for plugin in plugins:
                plugin.on_train_end(trainer, module)
            module.on_train_end()
            keeper.settle(trainer, module)
        if keeper.validated_step != module.steps_done:
            expect_finite(module)
            trainer.validate(module, validation, verbose=False)
            expect_finite_loss(module, "val")
        self._note(module, keeper, loader, phase)
        return module

    def _note(self, module: RecipeModule, keeper: BestAndLast, loader: StepLoader, phase: dict[str, Any]) -> None:
        steps = phase["steps"] + module.steps_done
        self.result["metrics"] = {name: value for name, value in keeper.best_metrics.items() if name != "epoch"}
        self.result |= {
            "monitor": keeper.monitor,
            "rulers": {"loss": self.config["loss"], **module.rulers},
            "directions": self._directions(module, keeper),
            "best_step": phase["steps"] + (keeper.best_step or 0),
            "steps": steps,
            "epochs": module.steps_done / len(loader),
            "phases": phase["index"] + 1,
            "stopped_early": self.trainer.should_stop and self._may_stop(module) and not self.time.reached,
            "ended_by": "max_time" if self.time.reached else None,
            "seconds": round(phase["seconds"], 3),
            "devices": self.trainer.world_size,
            "nodes": self.trainer.num_nodes,
            "samples_per_step": loader.step_size,
            "samples_per_second": round(steps * loader.step_size / max(phase["seconds"], 1e-9), 1),
            "parameters": count_parameters(module),
            "peak_memory": peak_memory(module.device),
        }

    def _may_stop(self, module: RecipeModule) -> bool:
        """Whether anything was chosen that may end a training early."""
        return any(plugin.group == "stopping" for plugin in module.plugins) or bool(self.config.get("callback"))

    @staticmethod
    def _directions(module: RecipeModule, keeper: BestAndLast) -> dict[str, str]:
        """Which value is best, "max" or "min", of the metrics of which this run knows it not from their names alone."""
        return {**declared_directions(module.plugins), keeper.monitor.partition("/")[2]: "max" if keeper.larger else "min"}

    def _test(self, module: RecipeModule) -> None:
        """Test the weights that validated best; the test split has chosen nothing."""
        module.load_state_dict(load_checkpoint(self.keeper.best_path)["state_dict"])
        loader = EvaluationLoader(self.data.splits["test"])
        loader.device = self.trainer.strategy.root_device
        self.trainer.test(module, loader, verbose=False)
        if is_first_rank():
            write_confusion(self.folder, self.data.tasks, module.confusion)
        self.result["metrics"] |= {name: value for name, value in module.metrics.items() if name.startswith("test/")}
        expect_finite_loss(module, "test")
        self.result["rulers"] |= module.rulers

    def _show(self, hints: Sequence[str]) -> None:
        where = path_word(self.folder)
        if self.result["status"] == "finished":
            self.console.print(table(self.result))
            print_lines(
                self.console,
                *(["stopped early: " + why_early(self.config)] if self.result["stopped_early"] else []),
                *([time_is_up(self.config, self.folder)] if self.time.reached else []),
                f"best step {self.result['best_step']} of {self.result['steps']}, {self.result['seconds']:.1f} s, "
                f"{self.result['samples_per_second']:,.0f} samples/s",
                f"folder   {self.folder}",
                *history_lines(self.result),
                *(f"wandb    {hint}" for hint in hints),
                f"next     {self._next_command(where)}",
            )
        elif self.result["status"] == "diverged":
            kept = (
                f"the best model is that of step {self.result['best_step']}" if self.result["metrics"] else "no model is kept"
            )
            print_lines(self.console, f"diverged at step {self.result['steps']}; {kept}", f"folder   {self.folder}")
            if is_first_rank():
                print(f"error: {self.result['error']}", file=sys.stderr)
        else:
            saved = f"the state of step {self.saved_step()} is saved" if self.last.exists() else "no state was saved yet"
            print_lines(
                self.console,
                f"stopped by {self.result['stopped_by']} at step {self.result.get('steps', 0)}; {saved}",
                f"folder   {self.folder}",
                f"go on    python train.py {typed('resume', self.folder)}",
            )

    def saved_step(self) -> int:
        """The step from which the run would go on."""
        checkpoint = load_checkpoint(self.last)
        return int(checkpoint["recipe"]["phase"]["steps"] + checkpoint["global_step"])

    def _next_command(self, where: str) -> str:
        if self.techniques == ["standardize", "sgd"]:
            return with_a_technique(self.command, self.module.model)
        return f"python evaluate.py {where}"


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


def is_of_content(error: Exception) -> bool:
    """Whether an error at the start of a resumed run comes from what the checkpoint holds, not from the machine or the user."""
    others = (RecipeError, Stopped, OSError)
    if memory.out_of_memory(error):
        return False
    return not isinstance(error, others) and not (ranks.world() > 1 and failures.CONSEQUENCE.search(str(error)))


def shares(step_size: int, world: int, nodes: int, parts: int) -> list[str]:
    """What each of several devices does of a step, in a line."""
    if world == 1:
        return []
    machines = f" on {nodes} nodes" if nodes > 1 else ""
    cut = f" in {parts} parts" if parts > 1 else ""
    return [f"{world} devices{machines}: each step takes {step_size:,} samples, {step_size // world:,} on each{cut}"]


class AfterStep(L.Callback):
    """Call something after the first step."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.do: Callable[[], None] | None = do

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Call it once."""
        if self.do is not None:
            do, self.do = self.do, None
            with pl_module.off_the_clock():
                do()


class StopBelow(L.Callback):
    """End a phase once a validation metric falls below a value."""

    def __init__(self, metric: str, value: float) -> None:
        self.metric, self.value = metric, value

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """A resumed phase may have come there before."""
        trainer.should_stop |= pl_module.metrics.get(self.metric, self.value) < self.value

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Compare."""
        if self.metric not in pl_module.metrics:
            there = ", ".join(sorted(name for name in pl_module.metrics if name.startswith("val/")))
            raise RecipeError(f"no metric {self.metric} to stop by; there are {there}")
        trainer.should_stop |= pl_module.metrics[self.metric] < self.value


def trainer_arguments(options: Mapping[str, Any], plugins: Sequence[Plugin]) -> dict[str, Any]:
    """What the config and the techniques ask of the Trainer, such as the interval of validations.

    Raises:
        RecipeError: two of them ask for different things, of which one would be dropped.
    """
    arguments: dict[str, Any] = {}
    askers: dict[str, str] = {}
    if every := options["val_every_n_steps"]:
        arguments = {"val_check_interval": every, "check_val_every_n_epoch": None}
        askers = dict.fromkeys(arguments, f"trainer.val_every_n_steps={every}")
    for plugin in plugins:
        for name, value in plugin.trainer_arguments().items():
            if name in arguments and arguments[name] != value:
                raise RecipeError(
                    f"{askers[name]} and {plugin.state_key} ({name}={value}) ask for different validations: leave one of the "
                    f"two intervals out"
                )
            arguments[name], askers[name] = value, f"{plugin.state_key} ({name}={value})"
    return arguments


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
    arguments = trainer_arguments(options, [callback for callback in callbacks if isinstance(callback, Plugin)])
    strategy = make_strategy(options)
    try:
        trainer = L.Trainer(
            accelerator=options["accelerator"],
            devices=options["devices"],
            num_nodes=options["num_nodes"],
            strategy=strategy,
            precision=options["precision"],
            sync_batchnorm=options["sync_batchnorm"],
            deterministic=options["deterministic"],
            max_epochs=-1 if limit >= 0 else config["max_epochs"],
            max_steps=limit,
            logger=list(loggers),
            callbacks=list(callbacks),
            plugins=[WholeFiles(), cluster_environment()],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=options["log_every_n_steps"],
            use_distributed_sampler=False,
            inference_mode=False,  # attacks and other measures of a test batch take gradients
            **arguments,
        )
    except (ValueError, RuntimeError, TypeError, ImportError, MisconfigurationException) as error:
        raise RecipeError(f"trainer: {first_line(error)}") from None
    # its own handlers end a run unsaved, and talk to the other ranks in the middle of whatever they do
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def evaluate(folder: Path, config: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Test a finished run on its test split, or with other data or another inference, on one device; returns the metrics."""
    console = Console()
    config = {**config, "trainer": config["trainer"] | {"devices": 1, "num_nodes": 1, "strategy": "auto"}}
    set_up_process(config)
    plugins = build_plugins(config)
    data = build_data(config)
    check_devices(config["trainer"])
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if not checkpoint.exists():
        raise RecipeError(
            f"{folder} has no checkpoints/best.ckpt: the run has not validated yet; type python train.py {typed('resume', folder)}"
        )
    module = load_module(config, checkpoint, plugins)
    seen = load_checkpoint(checkpoint)["recipe"]
    elsewhere = any(word.partition("=")[0] in ("data", *(f"data.{name}" for name in SOURCE)) for word in changes)
    which = data.setup_test(seen.get("data") or ("" if elsewhere else None), seen.get("content"))
    assert module.setting is not None
    if data.shape != module.setting.shape:
        raise RecipeError(f"the run was trained on samples of shape {module.setting.shape}, the data has {data.shape}")
    trained = {task.name: task for task in module.setting.tasks}
    for task in data.tasks:
        known = trained.get(task.name)
        if known is None or task.kind != known.kind or task.outputs > known.outputs:
            there = ", ".join(map(describe, module.setting.tasks))
            raise RecipeError(f"the run was trained on {there}, the data has {describe(task)}")
        if task.names != known.names:
            raise RecipeError(f"the run was trained on classes {', '.join(known.names)}, the data has {', '.join(task.names)}")
    trainer = make_trainer(config, folder, [], plugins)
    loader = EvaluationLoader(data.splits["test"])
    loader.device = trainer.strategy.root_device
    trainer.test(module, loader, verbose=False)
    metrics = {name: value for name, value in module.metrics.items() if name.startswith("test/")}
    samples = len(data.splits["test"])
    result = {"folder": str(folder), "changes": list(changes), "metrics": metrics, "samples": samples}
    console.print(table(result))
    print_lines(console, f"samples  {samples:,}: {which}", f"folder   {folder}")
    return result
