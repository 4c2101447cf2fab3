"""A composed config becomes a run: trained, stopped, resumed, evaluated."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console

from plugins.base import Diverged, GivenUp, Plugin, declared_directions
from plugins.errors import RecipeError
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.choices import choices
from recipes.config.duration import seconds_of
from recipes.config.errors import first_line, is_mistake
from recipes.config.quoting import path_word
from recipes.config.run_files import CHECKPOINTS, CONFUSION, HISTOGRAMS, LAST, LOG, METRICS, PICTURE, PICTURES, RESULT, TEST
from recipes.data.base import Data
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.engine.callbacks import Settle
from recipes.engine.checkpoint import BestAndLast, load_checkpoint
from recipes.engine.divergence import expect_finite, expect_finite_loss
from recipes.engine.logger import Deferred
from recipes.engine.module import RecipeModule
from recipes.engine.sharding import put_together
from recipes.engine.stop import StopOnSignal, Stopped
from recipes.launch import ranks
from recipes.launch.ranks import is_first_rank
from recipes.run import memory, phases
from recipes.run.advice import with_a_technique
from recipes.run.build import build_callbacks, build_loggers, build_plugins, make_module
from recipes.run.logs import Journal
from recipes.run.monitor import choose_monitor, direction_of
from recipes.run.pictures import draw_pictures, draw_what_was_seen
from recipes.run.preflight import world_size
from recipes.run.progress import ProgressBar
from recipes.run.record import at_start, for_loggers, of_phase, rulers_of
from recipes.run.resume import Start, is_of_content, start_of_resumed
from recipes.run.terminal import history_lines, print_lines, show_end, show_phase, show_start
from recipes.run.time_limit import TimeLimit
from recipes.run.trainer import AfterStep, StopBelow, make_trainer
from recipes.store import history
from recipes.store.claim import BESIDE, remove_parts, remove_run, set_aside
from recipes.store.folder import command_line, write_config, write_result
from recipes.store.tested import write_test

log = logging.getLogger("recipes")


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
        tuned: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.folder, self.data, self.console, self.module = config, folder, data, console, module
        self.journal, self.replaces, self.begun = journal, replaces, False
        monitor, _ = choose_monitor(config, module.plugins, data.tasks)
        larger = direction_of(config, module.plugins, data.tasks)
        self.directions = {
            **declared_directions(module.plugins, data.tasks),
            monitor.partition("/")[2]: "max" if larger else "min",
        }
        self.alone = all(path.name == LOG for path in folder.glob("*"))  # nobody has put anything there
        self.command, self.last, self.earlier = command, folder / CHECKPOINTS / LAST, earlier
        loader = StepLoader(
            data.splits["train"], data.batch_size, config["seed"], module.parts, world=world_size(config["trainer"])
        )
        chosen = choices(Catalogue(installed_folders()), config, command)
        self.result = at_start(config, command, chosen, module, loader, earlier.get("metrics", {}))
        self.result |= {"tuned": dict(tuned)} if tuned else {}
        self.result |= {"monitor": monitor, "directions": self.directions}  # by which a search gives up a run that is under way
        self.spent = float((tuned or {}).get("seconds", 0.0))  # before the first step, and a part of what the training cost
        self.logger = Deferred()
        self.keeper: BestAndLast  # of the phase under way
        self.time = TimeLimit(None if config["max_time"] is None else seconds_of("max_time", config["max_time"]), self.spent)

    def explain(self) -> None:
        """Tell from where a run that is resumed would go on, and with what that is new; refuse what would be refused then."""
        start = start_of_resumed(self.folder, self.config, self.earlier, self.result, self.module)
        print_lines(self.console, "", f"goes on from step {start.done if start else 0}", *history_lines(self.result))

    def go(self, resumed: bool) -> dict[str, Any]:
        """Train all phases, test, and write the result; what goes wrong is in the result too."""
        self.resumed, self.start = resumed, None
        if resumed:
            self.start = start_of_resumed(self.folder, self.config, self.earlier, self.result, self.module)
        nothing_done, hints = False, list[str]()
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
        except GivenUp as given_up:
            self._begin()
            self.result |= {"status": "pruned", "pruned_at": given_up.step, "reason": str(given_up)}
        except BaseException as error:
            self.result |= {"status": "failed", "error": first_line(error)}
            mistake = is_mistake(error)
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
        draw_what_was_seen(self.module.plugins, self.folder, self.result)
        log.info("%s after %s steps: %s", self.result["status"], self.result.get("steps", 0), self.result["metrics"])
        show_end(self.console, self.folder, self.result, hints, self._next_command())
        return self.result

    def _begin(self) -> None:
        """Write to the folder from now on."""
        if self.begun:
            return
        self.begun = True
        try:
            # killed from here on, it leaves nothing of the other run that these words would go on with
            with set_aside(self.folder) if self.replaces and is_first_rank() else nullcontext():
                self._write()
        except RecipeError:  # the disk is full: what was there is still there
            self.begun = False
            raise
        if is_first_rank():
            if self.replaces:
                remove_run(self.folder, keep=(RESULT, LOG, *BESIDE))
                os.truncate(self.folder / LOG, 0)
            remove_parts(self.folder)
            for outdated in (CONFUSION, TEST, PICTURE, *(() if self.start else (HISTOGRAMS, METRICS))):
                (self.folder / outdated).unlink(missing_ok=True)
            # after the result: whoever finds a config finds a run
            write_config(self.folder, self.config, self.command, history.commands(self.result))
        self.journal.pass_on()
        loggers = build_loggers(self.config, self.folder, for_loggers(self.folder, self.result, self.directions))
        if self.start:
            self.logger.start(loggers, self.start.done, self.start.logged)
        else:
            self.logger.start(loggers)
        for logger in self.logger.loggers:
            self.result |= logger.facts()
        self._write()

    def _write(self) -> None:
        if is_first_rank() and self.begun:
            write_result(self.folder, self.result)

    # ------------------------------------------------------------------ phases

    def _train(self, start: Start | None) -> None:
        phase = dict(start.phase) if start else phases.first(self.spent)
        module = self._fit(phase, None, start)
        while not self.time.reached and (following := phases.following(module, phase, self.result)):
            phase = following
            module = self._fit(phase, module, None)
        self._test(module)

    def _fit(self, phase: dict[str, Any], previous: RecipeModule | None, start: Start | None) -> RecipeModule:
        config, trainer_config, module = self.config, self.config["trainer"], self.module
        data, stopping = phases.data_of(self.data, phase), list[Plugin]()
        if phase["index"]:  # the techniques of the first phase decide what comes next; later phases train with fresh ones
            built = build_plugins(config)
            stopping = [plugin for plugin in built if plugin.group == "stopping"]
            plugins = [plugin for plugin in built if plugin.group != "stopping"]
            keeps = start is not None or not phase.get("fresh", True)  # weights of a checkpoint, or of the phase before
            best = None if start else load_checkpoint(self.keeper.best_path)["state_dict"]
            module = make_module(config, data, plugins, world_size(trainer_config), keeps, best)
        plugins = module.plugins
        asking = [*plugins, *stopping]  # for intervals, and for the metric: in all phases the same
        module.phase = dict(phase)
        if previous is not None:
            module.recorder.logged = previous.recorder.logged
        if previous is not None and not phase.get("fresh", True):
            module.load_state_dict(put_together(previous.state_dict()))
        size, world = data.batch_size, world_size(trainer_config)
        loader = StepLoader(
            data.splits["train"], size, config["seed"], module.parts, world=world, eval_batch_size=data.eval_batch_size
        )
        validation = EvaluationLoader(data.splits["val"], data.eval_batch_size)
        monitor, chooser = choose_monitor(config, asking, data.tasks)
        every = trainer_config["save_every_n_steps"] or 0
        keeper = BestAndLast(
            self.folder / CHECKPOINTS,
            monitor,
            every,
            self.stop,
            chooser.min_delta if chooser else 0.0,
            latest=bool(phase.get("all_data")),
            larger=direction_of(config, asking, data.tasks),
        )
        if self.resumed and not self.begun:
            keeper.saved_step = 0  # or where the checkpoint was saved: there is nothing new before the first step
        callbacks = [*plugins, *build_callbacks(config), AfterStep(self._begin), self.time, keeper]
        if phase.get("stop_below"):
            callbacks.append(StopBelow(*phase["stop_below"]))
        if trainer_config["progress"]:
            callbacks.append(ProgressBar(self.console))
        trainer = make_trainer(config, self.folder, [self.logger], callbacks, phase.get("max_steps"), stopping)
        if start is None:
            (show_phase if phase["index"] else show_start)(self.console, module, loader, trainer)
        loader.device = validation.device = trainer.strategy.root_device
        if start is not None:
            print_lines(self.console, f"going on from step {start.done}", *history_lines(self.result))
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
            options = [each for each in trainer.callbacks if isinstance(each, Settle | Plugin)]  # type: ignore[attr-defined]
            for each in options:
                each.on_train_start(trainer, module)  # so that it is known what rests, such as norm layers
            for each in options:
                each.on_train_end(trainer, module)
            module.on_train_end()
            keeper.settle(trainer, module)
        if keeper.validated_step != module.steps_done:
            expect_finite(module)
            trainer.validate(module, validation, verbose=False)
            expect_finite_loss(module, "val")
        self._note(module, keeper, loader, phase)
        return module

    def _note(self, module: RecipeModule, keeper: BestAndLast, loader: StepLoader, phase: dict[str, Any]) -> None:
        may_stop = any(plugin.group == "stopping" for plugin in module.plugins) or bool(self.config.get("callback"))
        stopped = self.trainer.should_stop and may_stop and not self.time.reached
        self.result |= of_phase(phase, module, keeper, loader, self.trainer, stopped)
        self.result |= {
            "rulers": rulers_of(phase, self.config["loss"], module, self.result["metrics"]),
            "ended_by": "max_time" if self.time.reached else None,
        }

    def _test(self, module: RecipeModule) -> None:
        """Test the weights that validated best; the test split has chosen nothing."""
        module.load_state_dict(load_checkpoint(self.keeper.best_path)["state_dict"])
        loader = EvaluationLoader(self.data.splits["test"], self.data.eval_batch_size)
        loader.device = self.trainer.strategy.root_device
        self.trainer.test(module, loader, verbose=False)
        if is_first_rank():
            counted = write_test(self.folder, self.data.tasks, module.confusion, module.tallied)
            self.logger.log_test(counted, self.result["steps"])
        self.result["metrics"] |= {name: value for name, value in module.metrics.items() if name.startswith("test/")}
        expect_finite_loss(module, "test")
        self.result["rulers"] |= rulers_of(module.phase, self.config["loss"], module, self.result["metrics"])

    def _next_command(self) -> str:
        if self.result["techniques"] == ["standardize", "sgd"]:
            return with_a_technique(self.command, self.module.model)
        return f"python evaluate.py {path_word(self.folder)}"
