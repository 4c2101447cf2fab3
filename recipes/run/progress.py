"""What a person sees while a run goes on."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.config.errors import printable
from recipes.engine.module import RecipeModule


def epoch_of(trainer: L.Trainer) -> str:
    """The epoch in words, of how many where that is known; a sweep reads it from the output of its jobs."""
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else "")


def phase_of(module: Any) -> str:
    """The name of a further phase of a run, to be put behind the epoch."""
    return f"  {module.phase['name']}" if module.phase["index"] else ""


class ProgressBar(L.Callback):
    """A bar over all steps of a phase with epoch, loss, accuracy and time left; without a terminal, one line a validation."""

    def __init__(self, console: Console, refresh: float = 0.1) -> None:
        self.console, self.refresh = console, refresh
        self.bar: Progress | None = None
        self.shown = 0.0
        self.latest = ""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        if not (trainer.is_global_zero and self.console.is_terminal):
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        self.bar.start()
        self.task = self.bar.add_task("", total=trainer.estimated_stepping_batches, numbers="", completed=trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar, some times a second; only then are numbers read from the device."""
        now = time.monotonic()
        if self.bar is None or now - self.shown < self.refresh:
            return
        self.shown = now
        self.bar.update(
            self.task,
            completed=trainer.global_step,
            description=printable(epoch_of(trainer) + phase_of(pl_module)),
            numbers=printable(
                " ".join(f"{name} {value:.3f}" for name, value in pl_module.recorder.running().items()) + self.latest
            ),
            refresh=True,
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how the validation went."""
        assert isinstance(pl_module, RecipeModule)
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = pl_module.metrics
        numbers: dict[str, float] = {name: metrics[name] for name in ("val/loss", "val/acc") if name in metrics}
        self.latest = "".join(f"  {name} {value:.3f}" for name, value in numbers.items())
        if self.bar is None and trainer.state.fn == "fit":
            numbers = {name: metrics[name] for name in ("train/loss", "train/acc") if name in metrics} | numbers
            shown = "".join(f"  {name} {value:.4f}" for name, value in numbers.items())
            self.console.print(
                printable(epoch_of(trainer) + phase_of(pl_module) + shown), soft_wrap=True, markup=False, highlight=False
            )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self.close()
