"""What the parts of a module, such as its step and its evaluation, may use of it: the module is made of them, not they of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import Batch, Option, Plugin, Selection, Setting
from plugins.inputs import Inputs
from plugins.recording import Recording
from recipes.engine.groups import GroupRules
from recipes.engine.objective import TaskLosses
from recipes.engine.randomness import Draws


class Whole(L.LightningModule):
    """A `RecipeModule` as its parts see it: its fields, and what it can do for them."""

    # what it is given
    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    make_optimizer: Callable[[Any], Optimizer]
    make_scheduler: Callable[[Optimizer, int], LRScheduler] | None
    seed: int
    parts: int
    rules: GroupRules
    log_every_n_steps: int
    compiled: bool
    standardize_targets: bool

    # what it is made of
    draws: Draws
    recorder: Any
    calibrated: Any
    step: Any
    evaluation: Any

    # what it is trained with, known once it is built
    plugins: list[Plugin]
    left_out: list[Plugin]  # techniques whose strength is zero: nothing of them is ever called
    others: list[Option]  # what is no technique but speaks for itself: model, loss
    of_optimizer: list[Option]  # the same of optimizer and schedule, made anew for each fit
    chosen: frozenset[str]  # options of data, model, loss, optimizer and scheduler, where there is a config
    selection: Selection | None
    setting: Setting | None
    hooks: dict[str, list[Any]]
    gated: list[tuple[Option, list[nn.Module]]]  # layers that act in a share of the training, by the option they belong to
    is_timed: bool  # whether an option acts in a share of the training only
    task_losses: TaskLosses
    takes_tokens: bool  # whether whole numbers go in as they are
    is_built: bool
    learned_from: set[str]  # what the Trainer did when statistics were made of a loader's samples, such as fit

    # what is known of the training
    phase: dict[str, Any]
    data_seen: str | None  # the fingerprint of the data, where it is known
    data_content: str | None  # the same of all samples, however they are split
    data_state: dict[str, Any]  # what the data has learned of its training split
    metrics: dict[str, float]  # the last published value of each
    rulers: dict[str, dict[str, Any]]  # what the metrics of techniques were measured with, by their names
    confusion: dict[str, list[list[int]]]  # of the last test, by task: rows are true classes, columns predicted
    tallied: dict[str, dict[str, Any]]  # what else the last test has counted, by task
    recorded: Recording  # outputs of modules that options look at, in the pass that is trained on
    clean_batch: Batch | None  # of this step, before any technique changed it
    positions: range | None  # which samples of their split an evaluation looks at
    last_objective: Tensor  # what the last step minimized, a scalar

    @property
    @abstractmethod
    def options(self) -> list[Option]:
        """Techniques, and what else speaks for itself, in order."""

    @property
    @abstractmethod
    def steps_done(self) -> int:
        """Optimizer steps done in this phase."""

    @property
    @abstractmethod
    def progress(self) -> tuple[int, int | None]:
        """Optimizer steps done and in all, of this phase; None: the training has no end of its own."""

    @abstractmethod
    def acting(self, hook: str) -> list[Any]:
        """The options that define a hook of the step and act in this one."""

    @abstractmethod
    def build(self, plugins: Iterable[Plugin], setting: Setting | None = None, **facts: Any) -> None:
        """Check the selection and let the plugins change the model, in their declared order."""

    @abstractmethod
    def as_batch(self, data: Any) -> Batch:
        """A batch from what a loader yields: (inputs, targets), targets being a tensor or a dict with one entry a task."""

    @abstractmethod
    def inputs_of(self, x: Inputs) -> Inputs:
        """Inputs that a loader yields as the model takes them."""

    @abstractmethod
    def outputs(self, x: Inputs) -> dict[str, Tensor]:
        """The model's outputs for raw inputs, one entry a task."""
