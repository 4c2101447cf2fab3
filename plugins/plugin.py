"""A technique: what it may define, and what it may use of the module that it trains."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.data import Batch, Phase, Setting, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


def _plain(value: object) -> Any:
    """A value as JSON has it; an object by the name of its class."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, float)) else type(value).__name__


class Stage(IntEnum):
    """Where a technique stands in a step. The engine sorts by it, so the order in which options are written is free."""

    NORMALIZATION = 10  # the model: norm layers put in or replaced,
    LAYERS = 20  # dropout and other layers put beside the existing ones,
    HEADS = 30  # the output layer split into one head for each task,
    INIT = 40  # initial weights drawn,
    PREPROCESSING = 50  # the input layer put in front
    GEOMETRY = 110  # the batch: where pixels are,
    COLOUR = 120  # which colours they have,
    ERASING = 130  # which of them are there,
    NOISE = 140  # noise on them,
    TARGETS = 150  # targets softened,
    MIXING = 160  # samples mixed with each other,
    ADVERSARIAL = 170  # the worst case of what the stages above made
    PENALTY = 210  # the objective: terms added to the loss,
    WEIGHTS = 220  # weights perturbed during a pass,
    TASKS = 230  # losses of several tasks combined
    CLIPPING = 310  # the update: the gradient changed before the optimizer sees it,
    WRAPPER = 320  # the optimizer wrapped,
    PROJECTION = 330  # weights projected after the update,
    GUARD = 340  # a bad update undone,
    AVERAGING = 350  # weights averaged,
    STOPPING = 360  # the end of training decided
    INFERENCE = 410  # evaluation: how a prediction is made
    DIAGNOSTICS = 420  # what is only looked at


class Module(Protocol):
    """What a plugin may use of the engine's module (`recipes.engine.module.RecipeModule`)."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    setting: Setting
    trainer: Any
    state_dict: Callable[[], dict[str, Tensor]]
    clean_batch: Batch | None  # the samples of this step before any technique changed them
    last_objective: Tensor  # what the last step minimized, a scalar
    positions: range | None  # which samples of their split an evaluation looks at

    @property
    def steps_done(self) -> int:
        """Optimizer steps done."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    def generator(self, owner: str) -> torch.Generator:
        """The owner's random numbers for this step and part of the batch: a pure function of seed, owner, step and part."""

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """The model's outputs for raw inputs, one entry a task."""

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each task, a scalar tensor averaged over the batch."""

    def objective(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The losses of all tasks as one scalar."""

    def record(self, name: str, value: Tensor | float, at_once: bool = False) -> None:
        """Remember a number until the next logging step, or the end of training; tensors are not read until then.

        With `at_once` it is logged right after this step: for what is measured at an interval of its own. Of several passes in
        a step the first one counts, whose weights are those of the step; of several parts of a batch the mean over samples.
        """

    def record_histogram(self, name: str, values: Tensor, at_once: bool = False) -> None:
        """Remember the histogram of values, for the loggers that can log it, as `record` does; of several parts the last one."""

    def forget_step(self) -> None:
        """Leave the last step out of the training metrics: it was undone."""

    def evaluate_training(self, limit: int) -> dict[str, float]:
        """Loss and accuracy ("loss", "acc") on up to `limit` clean training samples, in evaluation mode."""


class Plugin(L.Callback):
    """A training technique. Every method below is optional; one that a class does not define costs nothing.

    `stage` orders plugins. `off` are parameter values that make the technique an exact no-op (None: there are none).
    `refuses` maps "group" or "group/option" to the reason, with the fix, why this technique cannot be combined with it.
    `directions` tells of its own metrics whether the largest or the smallest value is best ("max" or "min", by name without the
    split); torchmetrics objects tell it themselves, and of others it is known from the name (`plugins/directions.py`), or asked.
    `needs_probabilities` tells that what it measures means nothing unless the outputs of a classification are logits.
    `on_shards` tells whether the technique is right where each process keeps only a part of each weight, its gradient and
    its state (trainer=fsdp); None: it is if it defines nothing but what is in `AWAY_FROM_WEIGHTS`. See `plugins/shards.py`.
    """

    stage: ClassVar[Stage]
    off: ClassVar[Mapping[str, Any] | None] = None
    refuses: ClassVar[Mapping[str, str]] = {}
    on_shards: ClassVar[bool | None] = None
    directions: ClassVar[Mapping[str, str]] = {}
    needs_probabilities: ClassVar[bool] = False
    monitor: str | None = None  # the validation metric that chooses the best model, where the technique has a say
    monitor_mode: str | None = None  # whether its largest ("max") or smallest ("min") value is best; None: as declared
    min_delta: float = 0.0  # by how much that metric must improve to count as better
    repeats: int = 1  # steps in a row that train on the same batch
    remarks: Sequence[str] = ()  # what a user should know of what was decided, a line each; printed when the run starts

    setting: Setting

    @property
    def recovers(self) -> bool:
        """Whether the technique ends a training with good weights that it has kept, where those of the last step are NaN."""
        return False

    @property
    def option(self) -> str:
        """The option's name on the command line: the name of the file that defines the class; in a script, of the class."""
        package, _, file = type(self).__module__.rpartition(".")
        return file if package else re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).lower()

    @property
    def group(self) -> str:
        """The config group: the name of the folder that holds that file; none for a class of a script or a notebook."""
        return type(self).__module__.rpartition(".")[0].rpartition(".")[2]

    @property
    def state_key(self) -> str:
        """The name under which checkpoints keep this plugin's state."""
        return f"{self.group}/{self.option}" if self.group else self.option

    def record(self, module: Module, name: str, value: Tensor | float, at_once: bool = False) -> None:
        """Have a number logged as OPTION/NAME; see :meth:`Module.record`."""
        module.record(f"{self.option}/{name}", value, at_once)

    # before training
    def prepare(self, setting: Setting) -> None:
        """Learn what is known of the data, once, before the model is transformed; keeps it as `self.setting`."""
        self.setting = setting

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Change the model, once, before the optimizer is made."""
        return model

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Wrap the optimizer, once; see :class:`OptimizerWrapper`."""
        return optimizer

    def check(self, selection: Selection) -> None:
        """Raise a :class:`Refusal` where the run as a whole cannot be right; called before the first batch."""

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments that the Lightning Trainer must get for this technique, such as the validation interval."""
        return {}

    # in each step
    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Change the batch, once a step, outside the optimizer's closure; draws come from `module.generator`."""
        return batch

    def picture(self, before: Tensor, after: Tensor) -> Sequence[Tensor] | None:
        """What to draw, once a run, of images that `transform_batch` changed; None: nothing.

        Both have the shape (samples, channels, height, width); so has each row of the picture, with values in [0, 1]. By
        default the rows are before, after and, where the shape stayed, the difference: grey where there is none, scaled so
        that the largest is white or black.
        """
        if before.shape != after.shape:
            return [before, after]
        difference = after - before
        return [before, after, 0.5 + 0.5 * difference / difference.abs().amax()]

    def around_pass(self, module: Module, batch: Batch) -> AbstractContextManager[Any]:
        """A context around each forward and backward pass, left before the optimizer's update."""
        raise NotImplementedError

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """A scalar added to the loss in each forward pass."""
        return None

    def combine(self, losses: Mapping[str, Tensor], module: Module) -> Tensor:
        """The losses of all tasks as one scalar."""
        raise NotImplementedError

    def backward(self, losses: Mapping[str, Tensor], module: Module, scale: float) -> None:
        """A backward pass of its own, in place of `combine`: add `scale` times the gradient to `parameter.grad`.

        The gradient must be the same on all ranks when this returns.
        """
        raise NotImplementedError

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Change `parameter.grad` right before the update; with a wrapper, only the gradient that updates the weights."""

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Act right after the update, before anything else sees the new weights."""

    # evaluation
    def evaluation_weights(self, module: Module) -> AbstractContextManager[Any]:
        """A context around each validation, test and the saving of the best model that puts other weights in place."""
        raise NotImplementedError

    def predict(self, module: Module, x: Tensor) -> dict[str, Tensor]:
        """Predictions for raw inputs, one entry a task: probabilities, or values for a regression."""
        raise NotImplementedError

    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Further metrics of an evaluation batch: one value a sample each; logged as SPLIT/NAME, the mean over samples."""
        return {}

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """Further metrics of a task, as torchmetrics objects, new ones at each call; logged as SPLIT/NAME, of several tasks SPLIT/TASK/NAME.

        Of a classification they are given probabilities (samples, classes) and the true labels (samples,), of a regression
        predictions and targets, both (samples, columns) in the units of the targets. They see each sample of a split once,
        their states are put together over all processes, and they compute one number.
        """
        return {}

    def ruler(self, metric: str) -> Mapping[str, Any]:
        """What a metric of `measure`, `metrics` or `after_validation` was measured with: runs in which that differs are not compared by it.

        Plain values by name. By default all parameters of the technique; one that leaves the number's meaning alone, such as how
        the model was trained, is to be left out.
        """
        names = inspect.signature(type(self)).parameters
        return {name: _plain(getattr(self, name)) for name in names if hasattr(self, name)}

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at the metrics of a validation during training, with the evaluated weights still in place; further metrics."""
        return {}

    # after a fit
    def next_phase(self, result: Mapping[str, Any]) -> Phase | None:
        """Ask for one more fit when one has ended; `result` has the metrics, steps and best step so far."""
        return None


@dataclass
class Selection:
    """All that a run was asked to do, for `Plugin.check`."""

    plugins: Sequence[Plugin]
    setting: Setting
    precision: str = "32-true"
    devices: int = 1
    batch_size: int | None = None
    parts: int = 1  # forward and backward passes that make up one step on this device
    compiled: bool = False
    sharded: bool = False  # whether each device keeps only a part of each parameter, its gradient and its state

    def has(self, name: str) -> bool:
        """Whether a technique, "group" or "group/option", is selected."""
        return any(name in (plugin.group, plugin.state_key) for plugin in self.plugins)
