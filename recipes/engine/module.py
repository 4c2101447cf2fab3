"""The one LightningModule: it takes a batch through all selected plugins to an update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import HOOKS, Batch, Option, Plugin, Setting, order
from plugins.inputs import Inputs, plain, some
from plugins.recording import Recording
from recipes.data.targets import as_outputs
from recipes.engine.building import build, set_up
from recipes.engine.calibration import Calibrated, expect_splits
from recipes.engine.callbacks import BuildFirst, Settle, defines, stand_first
from recipes.engine.divergence import expect_finite
from recipes.engine.evaluating import Evaluating
from recipes.engine.evaluation import Evaluation
from recipes.engine.freezing import train_parameters
from recipes.engine.groups import GroupRules
from recipes.engine.lightning_private import is_attached
from recipes.engine.loading import as_batch, dtype_of, instruct_loader, is_there, prepared
from recipes.engine.objective import TaskLosses
from recipes.engine.optimizers import configure
from recipes.engine.randomness import Draws
from recipes.engine.recorder import Recorder
from recipes.engine.schedules import step_schedules
from recipes.engine.step import TOLD, Step
from recipes.engine.stopwatch import Stopwatch


class RecipeModule(Evaluating):
    """Train a model with any set of plugins.

    A step of the optimizer is one batch of the loader, cut into `parts` that pass forward and backward one after the
    other (gradient accumulation). Whatever is random is a pure function of seed, owner, step and part.

    Args:
        model: maps raw inputs (samples, ...) to outputs (samples, outputs), or to a dict with one entry a task.
        loss: maps outputs and targets to one value a sample, (samples,), or to a scalar averaged over the batch; torch's losses are
            asked for the values of samples by their `reduction`.
        optimizer: makes the optimizer from parameter groups, such as `functools.partial(torch.optim.Adam, lr=1e-3)`.
        scheduler: makes a learning rate scheduler from the optimizer and the number of steps; stepped after each step.
        seed: from which all random numbers are derived.
        parts: forward and backward passes a step, on this device.
        no_decay: which of "bias" and "norm" get no weight decay from the optimizer.
        layer_decay: factor by which the learning rate falls with each layer away from the head, in (0, 1].
        rates: factors on the learning rate by name of a module, with wildcards; see :class:`GroupRules`.
        log_every_n_steps: how often numbers of single steps are logged.
        compile: whether the model is compiled by torch.compile.
        standardize_targets: whether a regression is learned with mean 0 and deviation 1 of its training targets, where the loss
            depends on output − target alone; predictions and metrics stay in the units of the targets (`recipes/engine/units.py`).

    Plugins are the Trainer's callbacks: `L.Trainer(callbacks=[Dropout(0.5)]).fit(RecipeModule(...), loader)`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[[Any], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        *,
        seed: int = 0,
        parts: int = 1,
        no_decay: Sequence[str] = (),
        layer_decay: float = 1.0,
        rates: Mapping[str, float] | None = None,
        log_every_n_steps: int = 50,
        compile: bool = False,
        standardize_targets: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.loss = model, loss
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.seed, self.parts = seed, parts
        self.rules = GroupRules(tuple(no_decay), layer_decay, dict(rates or {}))
        self.log_every_n_steps, self.compiled = log_every_n_steps, compile
        self.standardize_targets = standardize_targets
        self.draws, self.stopwatch = Draws(seed), Stopwatch()
        self.recorder, self.calibrated = Recorder(self), Calibrated()
        self.step = Step(self)
        self.evaluation = Evaluation(self)
        self.plugins, self.left_out, self.others, self.of_optimizer, self.gated = [], [], [], [], []
        self.chosen, self.selection, self.setting, self.task_losses = frozenset(), None, None, TaskLosses({}, {})
        self.hooks = {hook.name: [] for hook in HOOKS}
        self.takes_tokens = self.is_built = self.is_timed = False
        self._total_steps = 0  # for which the scheduler was made
        self.phase = {"index": 0, "steps": 0, "seconds": 0.0}
        self.metrics, self.rulers, self.confusion, self.tallied = {}, {}, {}, {}
        self.recorded = Recording(())
        self.data_seen = self.data_content = self.clean_batch = self.positions = None
        self.data_state, self.learned_from = {}, set()

    # ------------------------------------------------------------------ before training

    def configure_callbacks(self) -> list[L.Callback]:
        """None of its own, but whatever builds the module comes before all others."""
        stand_first(self.trainer.callbacks)  # type: ignore[attr-defined]
        return []

    def setup(self, stage: str) -> None:
        """Build once, before the optimizer is made, and sort the callbacks."""
        self.set_up(stage)
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        # Lightning calls hooks in the order of its list: ours is declared, and the same for every spelling.
        rest = [callback for callback in callbacks if not isinstance(callback, Plugin | BuildFirst | Settle)]
        callbacks[:] = [*self.plugins, *rest]
        self.step.told = {hook: [each for each in callbacks if defines(each, hook)] for hook in TOLD}

    def set_up(self, stage: str) -> None:
        """Build once, from the trainer's callbacks."""
        set_up(self, stage)

    def build(self, plugins: Iterable[Plugin], setting: Setting | None = None, **facts: Any) -> None:
        """Check the selection and let the plugins change the model, in their declared order.

        Args:
            plugins: in any order.
            setting: what is known of the data; None: what the trainer's loader tells.
            facts: of the trainer, as of `Selection`; by default those of the one that there is.
        """
        build(self, plugins, setting, facts)

    def configure_optimizers(self) -> Any:
        """The optimizer with its wrappers, and the scheduler."""
        told, self._total_steps = configure(self)
        self.step.parameters = list(self.model.parameters())
        return told

    # ------------------------------------------------------------------ what plugins may use

    @property
    def steps_done(self) -> int:
        """Optimizer steps done in this phase."""
        return int(self.trainer.global_step) if is_attached(self) else 0

    @property
    def options(self) -> list[Option]:
        """Techniques, and what else speaks for itself, in order."""
        return order([*self.plugins, *self.others, *self.of_optimizer])

    @property
    def progress(self) -> tuple[int, int | None]:
        """Optimizer steps done and in all, of this phase; None: the training has no end of its own."""
        return self.steps_done, self._total_steps or None

    def acting(self, hook: str) -> list[Any]:
        """The options that define a hook of the step and act in this one."""
        options = self.hooks[hook]
        return [option for option in options if option.acts(self.step.progress)] if self.is_timed else options

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those of earlier phases and of the run before it was resumed included."""
        return float(self.phase["seconds"]) + self.stopwatch.seconds

    def train_parameters(self, trained: Mapping[str, bool]) -> None:
        """Have parameters of the model, by name, trained from the next step on, or not; on all processes at the same step."""
        train_parameters(self, trained)

    def off_the_clock(self) -> AbstractContextManager[None]:
        """Do what is no training, and would make one technique look slower than another."""
        return self.stopwatch.paused()

    def generator(self, owner: str, device: torch.device | str | None = None, same_on_ranks: bool = False) -> torch.Generator:
        """The owner's random numbers for this step and part: adding a technique leaves the draws of the others alone."""
        return self.draws.generator(owner, torch.device(device or self.device), same_on_ranks)

    def outputs(self, x: Inputs) -> dict[str, Tensor]:
        """The model's outputs for raw inputs, one entry a task."""
        return as_outputs(self.setting.tasks, self.model(x), some(x).shape[0])  # type: ignore[union-attr]

    def losses(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weight: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The loss of each task as it is minimized, of these samples: of standardized numbers where a regression is learned so."""
        return self.task_losses.minimized(outputs, targets, weight or {})

    def loss_of_samples(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each sample as it is minimized, (samples,), by task."""
        return self.task_losses.of_samples(outputs, targets)

    def mean(self, values: Tensor, batch: Batch, task: str | None = None) -> Tensor:
        """The mean over samples of something minimized beside the loss: weighted, and divided once over a step."""
        return self.step.mean(values, batch, task)

    def step_losses(self) -> Tensor:
        """The loss of each of several tasks in this step, (tasks,), over all parts and ranks, which ask at the same time."""
        return self.step.losses()

    def objective(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        weight: Mapping[str, Tensor] | None = None,
        share: float | None = None,
    ) -> Tensor:
        """The losses of all tasks as one scalar; `weight` is that of a batch, `share` makes it a part of the step under way."""
        totals = {} if share is None else self.step.totals(share)
        with self.recorder.silent():
            return self.task_losses.combine(self.task_losses.minimized(outputs, targets, weight or {}, totals))

    def record(self, name: str, value: Tensor | float, at_once: bool = False) -> None:
        """Remember a number until the next logging step; of the first pass of a step, and of its parts the mean."""
        self.recorder.record(name, value, at_once)

    def record_histogram(self, name: str, values: Tensor, at_once: bool = False) -> None:
        """Remember the histogram of values until the next logging step."""
        self.recorder.record_histogram(name, values, at_once)

    def forget_step(self) -> None:
        """Leave the last step out of the training metrics: it was undone."""
        self.recorder.forget_step()
        self.step.undone = True

    @property
    def step_undone(self) -> bool:
        """Whether a technique has undone this step."""
        return self.step.undone

    def evaluate_training(self, limit: int) -> dict[str, float]:
        """Loss and accuracy on up to `limit` clean training samples in evaluation mode."""
        return self.evaluation.of_training(limit)

    # ------------------------------------------------------------------ training

    def on_train_start(self) -> None:
        """Start the clock."""
        expect_splits(self)
        self.stopwatch.start()

    def on_train_epoch_start(self) -> None:
        """Tell the loader where the training is: that of a data module may be another one each time it is asked for."""
        instruct_loader(self, self.trainer.train_dataloader)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One update, and what follows it: schedules, logging, the seed of what draws between two steps."""
        self.step.run(batch)
        step_schedules(self.trainer)
        logs = self.steps_done % self.log_every_n_steps == 0
        self.recorder.end_step(logs)
        if logs:
            expect_finite(self)
        self.draws.seed_between(self.steps_done, self.device)
        return self.last_objective

    def on_train_end(self) -> None:
        """Log the last step; a training whose weights are good for nothing does not end well."""
        if not self.trainer.should_stop:
            expect_finite(self)
        self.recorder.end_training()
        self.evaluation.settle()

    # ------------------------------------------------------------------ batches and checkpoints

    def as_batch(self, data: Any) -> Batch:
        """A batch from what a loader yields: (inputs, targets), targets being a tensor or a dict with one entry a task."""
        assert self.setting is not None
        looked_at, ignored = self.data_seen is not None, self.task_losses.ignored
        return as_batch(data, self.setting.tasks, dtype_of(self.model, self.dtype), self.takes_tokens, looked_at, ignored)

    def inputs_of(self, x: Inputs) -> Inputs:
        """Inputs that a loader yields as the model takes them."""
        return prepared(x, self.takes_tokens, dtype_of(self.model, self.dtype))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch; one of our loaders, which is there already, need not be searched for tensors."""
        return batch if is_there(batch, device) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed or evaluated run needs beside weights and optimizer."""
        assert self.setting is not None
        checkpoint["recipe"] = {
            "seed": self.seed,
            "phase": {**self.phase, "seconds": self.seconds},
            "shape": plain(self.setting.shape),
            "data": self.data_seen,
            "content": self.data_content,
            "data_state": self.data_state,
            "tasks": [task.plain() for task in self.setting.tasks],
            "metrics": dict(self.metrics),
            "total_steps": self._total_steps,
            **self.recorder.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where the checkpoint was saved."""
        kept = checkpoint["recipe"]
        self.phase = kept["phase"]
        self.metrics = dict(kept["metrics"])
        place = (self.trainer.global_rank, self.trainer.world_size) if is_attached(self) else (0, 1)
        self.recorder.load_state_dict(kept, *place)
