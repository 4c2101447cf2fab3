"""The contract between a training technique and the engine that runs it.

A technique is a :class:`Plugin`: a Lightning callback with a handful of further methods, each optional.
`docs/design.md` tells in which order the engine calls them.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Protocol

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plugins.errors import Diverged as Diverged
from plugins.errors import RecipeError as RecipeError
from plugins.errors import Refusal as Refusal
from plugins.errors import _is_number as _is_number
from plugins.errors import expect as expect
from plugins.errors import expect_choice as expect_choice
from plugins.errors import expect_count as expect_count
from plugins.errors import expect_nonnegative as expect_nonnegative
from plugins.errors import expect_positive as expect_positive
from plugins.errors import expect_probability as expect_probability
from plugins.metric import MODES as MODES
from plugins.metric import larger_is_better as larger_is_better

UNIT = (0.0, 1.0)
LOOKED_AT = 10_000  # samples that tell the range of the inputs


def derive_seed(seed: int, *keys: str | int) -> int:
    """A seed of 63 bits for the owner named by `keys`, so that everything random has a stream of its own."""
    text = "/".join(map(str, (seed, *keys)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def class_probabilities(target: Tensor, classes: int) -> Tensor:
    """Labels (samples,) as probabilities (samples, classes), one at the label; probabilities as they are."""
    if target.is_floating_point():
        return target
    return torch.zeros(len(target), classes, device=target.device).scatter_(1, target.long().unsqueeze(1), 1.0)


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


@dataclass(frozen=True)
class Task:
    """One target to predict: its name ("" when it is the only one), its kind and the number of model outputs."""

    name: str
    kind: str  # "classification" | "regression"
    outputs: int
    names: tuple[str, ...] = ()  # of the classes, where they have some


@dataclass
class Batch:
    """What one forward and backward pass sees.

    `x` has shape (samples, *sample shape), raw, with bytes as numbers in [0, 1]. `targets` is what the loss sees, one entry a
    task: labels (samples,), or probabilities (samples, classes) once a technique softens them. `labels` are the true,
    unmodified targets, for metrics. `extra` carries what a technique keeps from `transform_batch` to `penalty`. In an
    evaluation `positions` says which samples of the split these are.
    """

    x: Tensor
    targets: dict[str, Tensor]
    labels: dict[str, Tensor]
    extra: dict[str, Any] = field(default_factory=dict)
    positions: range | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Setting:
    """What is known before training: the data's shape and tasks, and how to reach the raw training inputs and targets.

    `training_targets` yields the targets of the training split piece by piece, by task. `training_inputs` yields the training split's raw inputs piece by piece; it is None when a finished run is loaded,
    whose fitted values come from the checkpoint. `load_run(folder)` gives the trained module of another run.
    """

    shape: tuple[int, ...]
    tasks: tuple[Task, ...]
    seed: int = 0
    training_inputs: Callable[[], Iterator[Tensor]] | None = None
    load_run: Callable[[str], nn.Module] | None = None
    training_targets: Callable[[], Iterator[Mapping[str, Tensor]]] | None = None

    @property
    def is_image(self) -> bool:
        """Whether a sample has the shape (channels, height, width)."""
        return len(self.shape) == 3

    @cached_property
    def extremes(self) -> tuple[float, float] | None:
        """The smallest and the largest of the raw training inputs, of the first 10,000 samples; None where there are none."""
        pieces, seen, low, high = self.training_inputs() if self.training_inputs else iter(()), 0, math.inf, -math.inf
        for piece in pieces:
            low, high = min(low, float(piece.amin())), max(high, float(piece.amax()))
            seen += len(piece)
            if seen >= LOOKED_AT:
                break
        return (low, high) if seen else None

    @property
    def valid_range(self) -> tuple[float, float] | None:
        """The range of valid raw inputs: [0, 1] for images that lie within it; None where there is none, or it is not known."""
        inside = self.is_image and self.extremes and UNIT[0] <= self.extremes[0] and self.extremes[1] <= UNIT[1]
        return UNIT if inside else None


@dataclass(frozen=True)
class Phase:
    """One more fit after the first: early stopping's retrain and continue, curricula.

    `fresh`: start from fresh initial weights (else from the weights as they are). `all_data`: train on training and
    validation data. `max_steps`: optimizer steps at most. `stop_below`: end once this validation metric falls below
    the value.
    """

    name: str
    max_steps: int
    fresh: bool = False
    all_data: bool = False
    stop_below: tuple[str, float] | None = None


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
    split); of those that are not there it is known from the name (`plugins/metric.py`), or asked.
    `on_shards` tells whether the technique is right where each process keeps only a part of each weight, its gradient and
    its state (trainer=fsdp); None: it is if it defines nothing but what is in `AWAY_FROM_WEIGHTS`. See `plugins/shards.py`.
    """

    stage: ClassVar[Stage]
    off: ClassVar[Mapping[str, Any] | None] = None
    refuses: ClassVar[Mapping[str, str]] = {}
    on_shards: ClassVar[bool | None] = None
    directions: ClassVar[Mapping[str, str]] = {}
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
        """The option's name on the command line: the name of the file that defines the class."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def group(self) -> str:
        """The config group: the name of the folder that holds that file."""
        return type(self).__module__.split(".")[-2]

    @property
    def state_key(self) -> str:
        """The name under which checkpoints keep this plugin's state."""
        return f"{self.group}/{self.option}"

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

    def ruler(self, metric: str) -> Mapping[str, Any]:
        """What a metric of `measure` or `after_validation` was measured with: runs in which that differs are not compared by it.

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


# Methods that see weights before they are cut up, or not at all.
AWAY_FROM_WEIGHTS = (
    *("prepare", "check", "trainer_arguments", "state_dict", "load_state_dict", "next_phase"),
    *("transform_model", "transform_batch", "picture", "predict", "measure", "ruler"),
)


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


def order(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Plugins by stage, then name: the same for every order in which they were written."""
    return sorted(plugins, key=lambda plugin: (plugin.stage, plugin.group, plugin.option))


def implementers(plugins: Iterable[Plugin], method: str) -> list[Plugin]:
    """The plugins whose class defines `method`, in order."""
    return [plugin for plugin in plugins if getattr(type(plugin), method) is not getattr(Plugin, method)]


def declared_directions(plugins: Iterable[Plugin]) -> dict[str, str]:
    """What plugins declare of their own metrics, "max" or "min" by name.

    Raises:
        RecipeError: another word, or two plugins that contradict each other.
    """
    found: dict[str, str] = {}
    for plugin in plugins:
        for name, mode in plugin.directions.items():
            expect_choice(f"{plugin.state_key}: the direction of {name}", mode, MODES)
            if found.setdefault(name, mode) != mode:
                raise RecipeError(f"{plugin.state_key} declares {name} to be best at its {mode}, another technique does not")
    return found


def does_something(plugin: Plugin) -> bool:
    """Whether a plugin acts at all: some options, such as init=framework, stand for leaving things as they are."""
    return any(callable(value) and not name.startswith("__") for name, value in vars(type(plugin)).items()) or any(
        base is not Plugin and issubclass(base, Plugin) for base in type(plugin).__mro__[1:]
    )


def right_on_shards(plugin: Plugin) -> bool:
    """Whether a technique works where each process keeps only a part of each weight."""
    if plugin.on_shards is not None:
        return plugin.on_shards
    methods = [name for name in dir(Plugin) if callable(getattr(Plugin, name)) and not name.startswith("_")]
    return all(name in AWAY_FROM_WEIGHTS or not implementers([plugin], name) for name in methods)


def check_selection(selection: Selection) -> None:
    """Raise a :class:`Refusal` for the first pair that excludes each other, or for what a plugin says of the whole."""
    groups: dict[str, Plugin] = {}
    for plugin in selection.plugins:
        for name, reason in plugin.refuses.items():
            if selection.has(name):
                raise Refusal(f"{plugin.state_key} cannot be combined with {name}: {reason}")
        if (twin := groups.setdefault(plugin.state_key, plugin)) is not plugin:
            raise Refusal(f"{twin.state_key} is selected twice: leave one of the two out")
    for plugin in selection.plugins:
        plugin.check(selection)
        if selection.sharded and not right_on_shards(plugin):
            raise Refusal(
                f"{plugin.state_key} needs whole weights or gradients, and with trainer=fsdp each process keeps only parts "
                f"of them: type trainer=ddp"
            )


@lru_cache(maxsize=64)
def _closure_of(kind: type[Optimizer]) -> inspect.Parameter | None:
    return inspect.signature(kind.step).parameters.get("closure")


def closure_of(optimizer: Optimizer) -> inspect.Parameter | None:
    """The parameter by which an optimizer's step takes a closure; None where it takes none."""
    return _closure_of(type(optimizer))  # type: ignore[arg-type]


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether an optimizer cannot step without a closure, which it evaluates several times, as L-BFGS does."""
    found = closure_of(optimizer)
    return found is not None and found.default is inspect.Parameter.empty


class OptimizerWrapper(Optimizer):
    """An optimizer around another one: it shares parameter groups and state, so schedulers and checkpoints see one optimizer.

    A subclass redefines `step(closure)`. Each call of `closure()` clears the gradients, runs forward and backward on one
    and the same batch with the same random numbers, and returns the loss; `self.optimizer.step()` makes the update. What the
    wrapper does not have, such as hooks, is that of the wrapped optimizer. Copies and pickles are like those of torch's optimizers:
    they have no hooks.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        # torch's own constructor is left out on purpose: it would make parameter groups of its own.
        self.optimizer = optimizer
        self._hook_for_profile()

    def _hook_for_profile(self) -> None:
        self._zero_grad_profile_name = f"Optimizer.zero_grad#{type(self).__name__}.zero_grad"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "optimizer" not in self.__dict__:  # as while a copy is made
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        return getattr(self.optimizer, name)

    def __getstate__(self) -> dict[str, Any]:
        # a scheduler puts a step of its own into the instance, which belongs to this optimizer alone
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Make one update: by default that of the optimizer, which may ask for gradients as often as it likes."""
        if closure is None or closure_of(self.optimizer) is not None:
            return self.optimizer.step(*([] if closure is None else [closure]))  # type: ignore[arg-type, return-value]
        loss = closure()
        self.optimizer.step()
        return loss

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's parameter groups."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """The wrapped optimizer's state."""
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The wrapped optimizer's defaults."""
        return self.optimizer.defaults

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that are updated."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to the wrapped optimizer."""
        self.optimizer.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state; a wrapper with a state of its own adds to it."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.optimizer.load_state_dict(state_dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.optimizer!r})"
