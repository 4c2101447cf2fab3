"""Checkpoints that are written whole or not at all, and the end of a run on request."""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from plugins.base import RecipeError, larger_is_better
from recipes.config.run_files import BEST, LAST, PREVIOUS
from recipes.engine import kept
from recipes.engine.divergence import expect_finite
from recipes.engine.lightning_private import before_epoch_cut_short, take_up, without_sigterm_broadcast
from recipes.engine.stop import Agreement, StopOnSignal, Stopped
from recipes.launch import slurm_job as slurm
from recipes.store.files import unwritable, write_whole

WRITING = re.compile("PytorchStreamWriter|inline_container")


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint files, written whole and read without executing anything."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save beside the target, then move into place."""
        try:
            write_whole(Path(path), lambda file: torch.save(checkpoint, file))
        except RuntimeError as error:  # what torch makes of an OSError
            if not WRITING.search(str(error)):
                raise
            raise unwritable(Path(path), error) from None

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Load tensors and plain values only."""
        return load_checkpoint(Path(path), map_location)


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's tensors and plain values; one that would execute something is refused."""
    return kept.load(path, map_location)


class BestAndLast(Checkpoint):
    """Keep `last.ckpt`, from which a run goes on, and `best.ckpt`, the weights that validated best.

    `last.ckpt` is saved at each epoch's end, at the end of training, every `every_n_steps` steps and when the run is asked to
    stop; always between two steps, so a run that goes on from it repeats nothing and skips nothing. Where `best.ckpt` has
    been replaced since then, such as by the validation at the end of a run that is trained for longer later, `previous.ckpt` has
    the best weights that `last.ckpt` knows of.

    Args:
        folder: where the files go.
        monitor: the validation metric that chooses.
        every_n_steps: steps between two saves within an epoch; 0: none.
        stop: the end of the run on request.
        min_delta: by how much a score must beat the best one.
        latest: whether `best.ckpt` has the latest weights: validation samples that are trained on choose nothing.
        larger: whether a larger value of the metric is better; None: as its name tells.

    Raises:
        RecipeError: nobody knows whether a larger value is better.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        every_n_steps: int = 0,
        stop: StopOnSignal | None = None,
        min_delta: float = 0.0,
        latest: bool = False,
        larger: bool | None = None,
    ) -> None:
        super().__init__()
        known = larger_is_better(monitor) if larger is None else larger
        if known is None:
            raise RecipeError(
                f"whether a larger or a smaller {monitor} is better is not known: say so with trainer.mode=max or min"
            )
        self.larger = known
        self.folder, self.monitor, self.min_delta, self.latest = folder, monitor, min_delta, latest
        self.every_n_steps, self.stop = every_n_steps, stop
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.best_metrics: dict[str, float] = {}
        self.validated_step = -1
        self.ended = False  # whether training came to its end in this process
        self.saved_step = -1  # of last.ckpt
        self._known = True  # whether last.ckpt, where there is one, knows of a best.ckpt
        self._settled = False  # whether best.ckpt is what this run knows as the best
        self.agreement: Agreement | None = None

    @property
    def best_path(self) -> Path:
        """The file of the weights that validated best."""
        return self.folder / BEST

    @property
    def last_path(self) -> Path:
        """The file from which a run goes on."""
        return self.folder / LAST

    @property
    def previous_path(self) -> Path:
        """The file of the best weights that `last.ckpt` knows of, where `best.ckpt` is younger."""
        return self.folder / PREVIOUS

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on where the number of steps done says, whatever limits were in force when the state was saved."""
        if trainer.state.fn == "fit":
            take_up(trainer, checkpoint)
            self.saved_step = int(checkpoint["global_step"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for the end, all processes together."""
        before_epoch_cut_short(trainer, lambda: self._save(trainer))
        if dist.is_initialized():
            self.agreement = Agreement()
            # with which Lightning lets all processes wait for each other, and for their devices, before each step
            without_sigterm_broadcast(trainer)
        if self.stop:
            self.stop.hears()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All is saved."""
        if self.stop:
            self.stop.hears_no_more()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Between two steps: stop if asked to, save if it is time."""
        done = trainer.global_step
        if self.stop and (name := self._agreed()):
            self._save(trainer)
            raise Stopped(name)
        if self.every_n_steps and done and done % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the first step the run does go on."""
        if not self._settled:
            self.settle(trainer, pl_module)

    def _save(self, trainer: L.Trainer) -> None:
        """Save the state between two steps, unless the file has it.

        So what techniques do when the next epoch starts is not in it, and is done once; before the first step there is no state.
        """
        if trainer.global_step in (0, self.saved_step):
            return
        module: Any = trainer.lightning_module
        if not expect_finite(module):  # from NaN nothing goes on
            return
        trainer.save_checkpoint(self.last_path)
        self.saved_step, self._known = trainer.global_step, self.best_step is not None
        if trainer.is_global_zero:
            self.previous_path.unlink(missing_ok=True)

    def settle(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what was validated after the state from which the run goes on: bring back the best weights of that time.

        Where no file has them any more, nothing is known as the best: the next validation finds it anew.
        """
        self._settled, there = True, True
        if trainer.is_global_zero:
            if self.best_step is not None and not self._is_of(self.best_path, pl_module, self.best_step):
                there = self._is_of(self.previous_path, pl_module, self.best_step)
                if there:
                    os.replace(self.previous_path, self.best_path)
            self.previous_path.unlink(missing_ok=True)
        if not trainer.strategy.broadcast(there):
            self.best_score, self.best_step, self.best_metrics, self.validated_step = None, None, {}, -1
            self._known = False

    @staticmethod
    def _is_of(path: Path, pl_module: Any, step: int) -> bool:
        """Whether a checkpoint that is there has the weights of a step of the phase under way."""
        if not path.exists():
            return False
        kept = load_checkpoint(path)
        return bool(kept["global_step"] == step and kept["recipe"]["phase"]["index"] == pl_module.phase["index"])

    def _save_best(self, trainer: L.Trainer) -> None:
        known = self._known and self.last_path.exists() and self.best_path.exists()
        # where there is a previous one already it is that which last.ckpt knows, and best.ckpt is younger
        if trainer.is_global_zero and known and not self.previous_path.exists():
            second_name(self.best_path, self.previous_path)
        trainer.save_checkpoint(self.best_path, weights_only=True)

    def _agreed(self) -> str | None:
        """The signal by which all processes stop at this step, whichever of them has heard it, a step ago if they are several."""
        requested = self.stop.requested if self.stop else None
        if self.agreement is None:
            return requested
        heard = self.agreement.largest(slurm.SIGNALS.index(requested) + 1 if requested else 0)
        return slurm.SIGNALS[heard - 1] if heard else None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights that were just validated if they are the best so far."""
        if trainer.sanity_checking:
            return
        metrics: dict[str, float] = pl_module.metrics  # type: ignore[assignment]
        if self.monitor not in metrics and trainer.state.fn == "fit":
            there = ", ".join(sorted(name for name in metrics if name.startswith("val/")))
            raise RecipeError(f"no metric {self.monitor} to choose the best model by: trainer.monitor must be one of {there}")
        score = metrics.get(self.monitor, math.nan)  # of a technique that does not look at the validation at a run's end
        self.validated_step = trainer.global_step
        if (
            self.latest
            or self.best_score is None
            or self.best_score != self.best_score
            or is_better(self.larger, score, self.best_score, self.min_delta)
        ):
            self.best_score, self.best_step = score, trainer.global_step
            self.best_metrics = dict(metrics)
            self._save_best(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the state from which the next epoch starts."""
        self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that training has ended."""
        self.ended = True
        if self.agreement:
            self.agreement.last()

    def state_dict(self) -> dict[str, Any]:
        """Which weights are the best so far."""
        return {
            "best_score": self.best_score,
            "best_step": self.best_step,
            "best_metrics": self.best_metrics,
            "validated_step": self.validated_step,
            "monitor": self.monitor,
            "mode": "max" if self.larger else "min",
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave; a best model that another metric has chosen is refused."""
        chosen_by = state_dict.get("monitor", self.monitor)  # older checkpoints do not tell
        if chosen_by != self.monitor and state_dict.get("best_step") is not None:
            raise RecipeError(
                f"{self.monitor} cannot choose the best model any more, which {chosen_by} has chosen so far: "
                f"leave trainer.monitor={self.monitor} out, or start a new run with it"
            )
        mode = "max" if self.larger else "min"
        if (before := state_dict.get("mode", mode)) != mode and state_dict.get("best_step") is not None:
            raise RecipeError(
                f"the best model so far is that of the {before} of {self.monitor}, which the {mode} cannot follow: leave "
                f"trainer.mode={mode} out, or start a new run with it"
            )
        known = {"best_score": int | float | None, "best_step": int | None, "best_metrics": dict, "validated_step": int}
        for name, kind in known.items():
            value = state_dict.get(name)
            if not isinstance(value, kind):
                raise ValueError(f"{name} of the best model has another type")
            setattr(self, name, value)
        self._known = self.best_step is not None


def second_name(path: Path, other: Path) -> None:
    """Keep a file under another name too: what is written to the first one later is another file."""
    try:
        os.link(path, other)
    except OSError:  # a file system that knows no links
        with open(path, "rb") as source:
            write_whole(other, lambda file: shutil.copyfileobj(source, file))


def is_better(larger: bool, score: float, best: float, by: float = 0.0) -> bool:
    """Whether a score beats the best one, by being larger or by being smaller; NaN never does."""
    return score > best + by if larger else score < best - by
