"""A technique: what it may define, and what it may use of the module that it trains."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins import declare
from plugins.data import Batch, Phase, Setting, Task
from plugins.declare import Declared
from plugins.drawing import Panel
from plugins.hooks import HOOKS, STEP
from plugins.identity import ALWAYS, Identity, called, plain
from plugins.module import Module
from plugins.parameters import Named
from plugins.stage import Stage

if TYPE_CHECKING:
    from torchmetrics import Metric


class Option(Identity):
    """What an option may say of itself. Every method below is optional; one that a class does not define costs nothing.

    A technique is a :class:`Plugin`. The class of an optimizer, a schedule, a loss or a model may have `Option` as a base beside its
    own, and is asked like any technique from the moment it exists: an optimizer from the moment before the first batch, and what it
    must say earlier (`refuses`, `on_shards`, `group_parameters`) it says as a class.

    `stage` orders options. `off` are parameter values that make the technique an exact no-op (None: there are none).
    `refuses` maps "group" or "group/option" to the reason, with the fix, why this technique cannot be combined with it.
    `tells_samples_apart` asks that training batches say which samples of the split they have, and in which epoch (`Batch.samples`).
    `for_finished` tells that it is made for the evaluation of finished runs, and refused in a training.
    `directions` tells of its own metrics whether the largest or the smallest value is best ("max" or "min", by name without the
    split); torchmetrics objects tell it themselves, and of others it is known from the name (`plugins/directions.py`), or asked.
    `needs_logits` tells that it makes probabilities of the outputs of a classification, which not every loss trains as logits.
    `on_shards` tells whether the technique is right where each process keeps only a part of each weight, its gradient and
    its state (trainer=fsdp); None: it is if it defines only hooks that do not see weights. See `plugins/hooks.py`, `plugins/shards.py`.
    `on_named_inputs` tells whether it is right where inputs are a dict of tensors, such as tokens and a mask, and `on_class_maps` whether
    it is where targets have a label for each place of a sample; None: it is if it defines only hooks that do not see inputs, or targets.
    """

    stage: ClassVar[Stage] = Stage.SELF
    off: ClassVar[Mapping[str, Any] | None] = None
    refuses: ClassVar[Mapping[str, str]] = {}
    on_shards: ClassVar[bool | None] = None
    on_named_inputs: ClassVar[bool | None] = None
    on_class_maps: ClassVar[bool | None] = None
    tells_samples_apart: ClassVar[bool] = False
    for_finished: ClassVar[bool] = False
    directions: ClassVar[Mapping[str, str]] = {}
    needs_logits: ClassVar[bool] = False
    calibrated_on: ClassVar[str] = "val"
    monitor: str | None = None  # the validation metric that chooses the best model, where the technique has a say
    monitor_mode: str | None = None  # whether its largest ("max") or smallest ("min") value is best; None: as declared
    min_delta: float = 0.0  # by how much that metric must improve to count as better
    repeats: int = 1  # steps in a row that train on the same batch
    recorded: Sequence[nn.Module] = ()  # whose outputs are kept in the passes that `records` asks for: see `Module.recorded`
    remarks: Sequence[str] = ()  # what a user should know of what was decided, a line each; printed when the run starts
    events: Sequence[str] = ()  # what it did to the training, or saw go wrong, a line each; kept in result.json
    setting: Setting

    @property
    def recovers(self) -> bool:
        """Whether the technique ends a training with good weights that it has kept, where those of the last step are NaN."""
        return False

    @property
    def leaves_out(self) -> bool:
        """Whether it puts the label that the loss ignores where there is none, such as around a class map; known after `prepare`."""
        return False

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

    @classmethod
    def group_parameters(cls, named: Sequence[Named]) -> Sequence[Mapping[str, Any]]:
        """What the optimizer is to know of each parameter, as a mapping for each of `named`; those with equal ones form a group.

        `rate` is a factor on the learning rate; factors of several options multiply. All else goes into the group under its name,
        such as `weight_decay`; two options that contradict each other are refused.
        """
        return [{}] * len(named)

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Wrap the optimizer, once; see :class:`OptimizerWrapper`."""
        return optimizer

    def check(self, selection: Selection) -> None:
        """Raise a :class:`Refusal` where the run as a whole cannot be right; called before the first batch."""

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments that the Lightning Trainer must get for this technique, such as the validation interval."""
        return {}

    # in each epoch
    def order(self, labels: Mapping[str, Tensor], epoch: int, generator: torch.Generator) -> Tensor | tuple[Tensor, Tensor]:
        """Which samples an epoch takes, in which order: whole numbers, as many as there are samples, any of them several times.

        `labels` are the targets of all training samples, by task; `epoch` counts from 0. The answer must depend on the arguments, and
        on what `state_dict` keeps of before the epoch, alone: each process asks for it, and a resumed run asks again. `generator` is
        seeded for this technique and epoch. Steps take the samples from the front; those at the end that fill no step are left out.
        With it a factor for the loss of each sample of the split may be returned, (samples,), which makes up for how often it is drawn.
        """
        raise NotImplementedError

    # in each step
    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Change the batch, once a step, outside the optimizer's closure; draws come from `module.generator`."""
        return batch

    def picture(self, before: Tensor, after: Tensor) -> Sequence[Tensor] | None:
        """What to draw, once a run, of images that `transform_batch` changed; None: nothing.

        Both have the shape (samples, channels, height, width); so has each row of the picture, with values in [0, 1]. By
        default the rows are before, after and, where the shape stayed, the difference: grey where there is none, white or black at most.
        """
        if before.shape != after.shape:
            return [before, after]
        difference = after - before
        return [before, after, 0.5 + 0.5 * difference / difference.abs().amax()]

    def records(self, module: Module) -> bool:
        """Whether the pass that begins, one that is trained on, is to be kept of what `recorded` names."""
        return True

    def around_pass(self, module: Module, batch: Batch) -> AbstractContextManager[Any]:
        """A context around each forward and backward pass, left before the optimizer's update."""
        raise NotImplementedError

    def penalty(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """A scalar added to the loss in each forward pass."""
        return None

    def transform_losses(
        self, losses: Mapping[str, Tensor], module: Module, batch: Batch, outputs: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """The loss of each task in a forward pass as it is minimized, before they are combined; what is logged as loss stays."""
        return losses

    def combine(self, losses: Mapping[str, Tensor], module: Module) -> Tensor:
        """The losses of all tasks as one scalar."""
        raise NotImplementedError

    def aggregate(self, gradients: Tensor, module: Module) -> Tensor:
        """One gradient (n,) of those of all tasks (tasks, n), on the parameters that several tasks share.

        The gradients are those of the whole step: of all parts and ranks, in the order of `setting.tasks`, without penalties,
        whose gradient is added to the result, and without loss scaling. A parameter that only one task reaches, such as
        its head, gets the gradient of that task. Called each time the optimizer asks for gradients, without autocast; all ranks
        see, draw and return the same. With one task it is not called: there is nothing to agree upon.
        """
        raise NotImplementedError

    def transform_gradient(self, module: Module, parameters: Sequence[nn.Parameter]) -> None:
        """Change `parameter.grad` right before the update; with a wrapper, only the gradient that updates the weights."""

    def after_step(self, module: Module, optimizer: Optimizer) -> None:
        """Act right after the update, without autocast, before anything else sees the new weights."""

    # evaluation
    def evaluation_weights(self, module: Module) -> AbstractContextManager[Any]:
        """A context around each validation, test and the saving of the best model that puts other weights in place."""
        raise NotImplementedError

    def calibrate(self, module: Module, batches: Iterable[Batch]) -> Mapping[str, Tensor] | None:
        """Find what the trained model needs beside its weights, on the split `calibrated_on`: "train" or "val".

        It is called before each validation of a training and at its end, with the weights that are evaluated in place and all in
        evaluation mode, so that whatever is measured, chosen and saved is the calibrated model; never in a test or when a
        finished run is evaluated. `batches` yields the clean samples that this process has of the split, as many batches on
        each process, and is not read unless it is asked. What is returned is kept in buffers, by name, that are in every
        checkpoint: `module.calibrated.of(self.state_key)`. It must be the same on all processes. Running statistics of the model
        may be written in place: a technique's `evaluation_weights` puts them back, or training goes on from them.
        """
        return None

    def predict(self, module: Module, x: Tensor) -> dict[str, Tensor]:
        """Predictions for raw inputs, one entry a task: probabilities, or values for a regression."""
        raise NotImplementedError

    def measure(
        self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str
    ) -> Mapping[str, Tensor | tuple[Tensor, Tensor]]:
        """Further metrics of an evaluation batch: one value a sample, or these and which of them count; logged as SPLIT/NAME, the mean."""
        return {}

    def metrics(self, task: Task) -> Mapping[str, Metric]:
        """Further metrics of a task, as torchmetrics objects, new ones at each call; logged as SPLIT/NAME, of several tasks SPLIT/TASK/NAME.

        Of a classification they are given probabilities (samples, classes) and the true labels (samples,), of several labels a sample
        both (samples, labels), of a regression predictions and targets, both (samples, columns) in the units of the targets. They see each sample of a split once,
        their states are put together over all processes, and they compute one number.
        """
        return {}

    def ruler(self, metric: str) -> Mapping[str, Any]:
        """What a metric of `measure`, `metrics` or `after_validation` was measured with: runs in which that differs are not compared by it.

        Plain values by name. By default all parameters of the technique; one that leaves the number's meaning alone, such as how
        the model was trained, is to be left out.
        """
        names = [name for name in inspect.signature(type(self)).parameters if name != "when"]
        return {name: plain(getattr(self, name)) for name in names if hasattr(self, name)}

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at the metrics of a validation during training, with the evaluated weights still in place; further metrics."""
        return {}

    # after a fit
    def settle(self, module: Module) -> None:
        """Leave in the model what was trained, once a training has ended well: before any callback hears of the end."""

    def next_phase(self, result: Mapping[str, Any]) -> Phase | None:
        """Ask for one more fit when one has ended; `result` has the metrics, steps and best step so far."""
        return None

    def drawing(self) -> Sequence[Panel]:
        """What to draw of what it has seen, once a run has ended well, on the first process: the plots of a picture, side by side."""
        return ()


def acts_in_steps(kind: type) -> bool:
    """Whether a class of options does something in each step, by a hook or by layers, that may be left out in some."""
    hooks = [hook.name for hook in HOOKS if hook.moment == STEP and hook.label]
    return getattr(kind, "stage", None) == Stage.LAYERS or any(
        getattr(kind, name) is not getattr(Option, name) for name in hooks
    )


class Plugin(Option, Declared, L.Callback):
    """A training technique: an option that is a callback of Lightning's too.

    Its parameters are declared in the class's body (`plugins/declare.py`), and `off` comes from there. What is off is left out by
    the engine before anything of it is called, so no technique asks whether its strength is zero; one that still has something to
    tell then, such as a metric, says `measures_when_off`.
    """

    stage: ClassVar[Stage]
    measures_when_off: ClassVar[bool] = False

    when: tuple[float, float] = declare.span(
        "share of the training in which it acts, from and to", default=ALWAYS, kw_only=True, applies=acts_in_steps
    )

    @property
    def is_off(self) -> bool:
        """Whether all parameters have the values with which the technique does nothing at all."""
        if not self.off or self.measures_when_off:
            return False
        declared = type(self).declared_parameters
        kept = {(declared[name].kept if name in declared else "") or name: value for name, value in self.off.items()}
        return all(hasattr(self, name) and getattr(self, name) == value for name, value in kept.items())


@dataclass
class Selection:
    """All that a run was asked to do, for `Option.check`.

    `others` are the options that are no techniques but speak for themselves; of an optimizer first the class, then the object. `chosen` are
    those of data, model, loss, optimizer and scheduler, "group/option", where there is a config.
    `optimizer` and `scheduler` are those of the run, once they exist; `optimizer_class` is known before.
    """

    plugins: Sequence[Plugin]
    setting: Setting
    others: Sequence[Option | type[Option]] = ()
    chosen: frozenset[str] = frozenset()
    optimizer_class: type | None = None
    optimizer: Optimizer | None = None
    scheduler: Any = None
    total_steps: int | None = None  # optimizer steps of this fit; None: not known yet, or endless
    precision: str = "32-true"
    devices: int = 1
    batch_size: int | None = None
    parts: int = 1  # forward and backward passes that make up one step on this device
    compiled: bool = False
    sharded: bool = False  # whether each device keeps only a part of each parameter, its gradient and its state

    def has(self, name: str) -> bool:
        """Whether a technique, "group" or "group/option", is selected."""
        there = {called(option) for option in (*self.plugins, *self.others)} | self.chosen
        return name in there or any(each.partition("/")[0] == name for each in there)
