"""What a technique may use of the module that it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from plugins.data import Batch, Setting
from plugins.inputs import Inputs


class Module(Protocol):
    """What a plugin may use of the engine's module (`recipes.engine.module.RecipeModule`)."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    setting: Setting
    trainer: Any
    state_dict: Callable[[], dict[str, Tensor]]
    clean_batch: Batch | None  # the samples of this step before any technique changed them
    last_objective: Tensor  # what the last step minimized, a scalar
    calibrated: Any  # what options have found; `calibrated.of(state_key)` has it by name
    positions: range | None  # which samples of their split an evaluation looks at
    recorded: Mapping[
        nn.Module, Sequence[Tensor]
    ]  # what `Option.recorded` returned in this pass, each call; see `Option.records`

    @property
    def steps_done(self) -> int:
        """Optimizer steps done."""

    @property
    def progress(self) -> tuple[int, int | None]:
        """Optimizer steps done and in all, of this phase; None: the training has no end of its own."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    def generator(self, owner: str, device: torch.device | str | None = None, same_on_ranks: bool = False) -> torch.Generator:
        """The owner's random numbers for this step and part of the batch: a pure function of seed, owner, step and part.

        Args:
            owner: whose they are, by custom `self.option`; each has a stream of its own.
            device: where numbers are drawn; None: on that of this process. What steers Python is drawn on the "cpu", because
                reading a draw from a GPU would wait for it.
            same_on_ranks: draw the same on all ranks and for all parts of a batch: a function of seed, owner and step.

        While a batch is transformed its first step counts, so one that is repeated (`Plugin.repeats`) is drawn once. In
        `aggregate`, `transform_gradient` and `after_step`, which act on a step as a whole, all ranks draw the same.
        """

    def train_parameters(self, trained: Mapping[str, bool]) -> None:
        """Have parameters of `model`, by name, trained from the next step on, or not; between two steps, on all processes alike."""

    def outputs(self, x: Inputs) -> dict[str, Tensor]:
        """The model's outputs for raw inputs, one entry a task."""

    def predicted(self, x: Inputs) -> dict[str, Tensor]:
        """What is predicted for raw inputs, one entry a task: probabilities, or numbers, by the run's own way of inference."""

    def losses(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weight: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The loss of each task, a scalar tensor averaged over these samples; `weight` is that of a batch."""

    def loss_of_samples(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each sample as it is minimized, (samples,), by task; a loss that returns one number for all is refused."""

    def mean(self, values: Tensor, batch: Batch, task: str | None = None) -> Tensor:
        """The mean over samples of something minimized beside the loss, as the loss is one: weighted, and divided once over a step.

        Args:
            values: one a sample, (samples,), or one a label, (samples, *places).
            batch: whose weights count, and what makes up for how it was drawn.
            task: whose weights, and where its loss is a sum over samples this is one too; None: the mean of those of all tasks.
        """

    def step_losses(self) -> Tensor:
        """The loss of each of several tasks as it was minimized in the first pass of this step, (tasks,), in the order of `setting.tasks`.

        It is that of the whole step, over all micro-batches and ranks, and known once the passes are done: in `aggregate`,
        `transform_gradient` and `after_step`. All ranks must ask for it, in the same order.
        """

    def objective(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        weight: Mapping[str, Tensor] | None = None,
        share: float | None = None,
    ) -> Tensor:
        """The losses of all tasks as one scalar; `weight` is that of a batch.

        With `share`, that of a part in the samples of the step under way, they are divided as in the step: the sum over all parts and
        ranks, each times its share, is the loss of the step, also where parts have different weights or numbers of labels. Nothing is
        recorded by it.
        """

    def record(self, name: str, value: Tensor | float, at_once: bool = False) -> None:
        """Remember a number until the next logging step, or the end of training; tensors are not read until then.

        With `at_once` it is logged right after this step: for what is measured at an interval of its own. Of several passes in
        a step the first one counts, whose weights are those of the step; of several parts of a batch the mean over samples.
        """

    def record_histogram(self, name: str, values: Tensor, at_once: bool = False) -> None:
        """Remember the histogram of values, for the loggers that can log it, as `record` does; of several parts the last one."""

    def forget_step(self) -> None:
        """Leave the last step out of the training metrics: it was undone."""

    @property
    def step_undone(self) -> bool:
        """Whether a technique has undone this step, known to those that come behind it in `after_step`."""

    def evaluate_training(self, limit: int) -> dict[str, float]:
        """Loss and accuracy ("loss", "acc") on up to `limit` clean training samples, in evaluation mode."""
