"""Lightning's Trainer, with what a config and its techniques ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from plugins.base import Plugin
from plugins.errors import RecipeError
from recipes.config.errors import first_line
from recipes.engine.checkpoint import WholeFiles
from recipes.engine.lightning_private import without_signal_handlers
from recipes.engine.logger import RunLogger
from recipes.engine.sharding import make_strategy
from recipes.run.cluster import cluster_environment


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that measures nothing enters a generator at each of the forty hooks of a step; this one enters nothing."""

    nothing = nullcontext("")

    def profile(self, action_name: str) -> Any:
        """A context that does nothing, the same for all."""
        return self.nothing


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
    asking: Sequence[Plugin] = (),
) -> L.Trainer:
    """Lightning's Trainer, with what the techniques ask of it; those in `asking` are no callbacks, and have a say all the same."""
    options = config["trainer"]
    limit = max_steps if max_steps is not None else config["max_steps"]
    arguments = trainer_arguments(options, [*(each for each in callbacks if isinstance(each, Plugin)), *asking])
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
            profiler=NoProfiler(),
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
    without_signal_handlers(trainer)
    return trainer
