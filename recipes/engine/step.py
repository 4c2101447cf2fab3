"""One update of the weights: a batch, cut into parts, goes through all plugins to gradients, and through the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from plugins.base import Batch, RecipeError, per_label
from plugins.input_gradients import light_input_gradients
from plugins.inputs import pieces_of
from plugins.sites import kept_buffers
from recipes.engine.parts import Whole
from recipes.engine.recorder import add_metrics
from recipes.engine.sync import averaged, block_reduction, share_statistics
from recipes.engine.task_gradients import TaskGradients
from recipes.engine.timing import open_gates

TOLD = ("on_before_zero_grad", "on_before_backward", "on_after_backward")


class Step:
    """The step of a :class:`RecipeModule`; whatever happens in it is a pure function of the batch and the draws of its owners.

    Attributes:
        progress: steps done and in all when it began, by which it is decided who acts in all of it.
        passes: how often the optimizer has asked for gradients in this step.
        undone: whether a technique has undone it.
        parameters: those whose gradients are cleared.
        told: callbacks by the hooks that Lightning leaves out: before that, and around gradients that are made here.
    """

    def __init__(self, module: Whole) -> None:
        self.module = module
        self.progress: tuple[int, int | None] = (0, None)
        self.passes, self.undone = 0, False
        self._batches: list[Batch] = []
        self._totals: dict[str, Tensor | float] = {}  # what losses are divided by, where that is not the number of samples
        self._weights: dict[str | None, Tensor | None] = {}  # of all samples of the step, by task
        self.parameters: list[nn.Parameter] = []
        self.told: dict[str, list[L.Callback]] = {hook: [] for hook in TOLD}
        self._tasks: TaskGradients | None = None  # of this closure call
        self._reduced: torch.dtype | None = None  # precision of the passes, where it is mixed
        self._losses: list[
            tuple[dict[str, Tensor], float]
        ] = []  # of several tasks in each part of the first pass, and its share

    def run(self, data: Any) -> None:
        """One update: transform the batch once, then let the optimizer ask for gradients as often as it likes."""
        module = self.module
        self.progress = module.progress
        if module.gated:
            open_gates(module, self.progress)
        pieces = self._split(data)
        samples = sum(map(len, pieces))
        module.recorder.begin_step()
        self._batches = [self._transform(part, piece, samples) for part, piece in enumerate(pieces)]
        module.recorder.weigh(1.0)
        self._totals = module.task_losses.totals(self._batches, module.trainer.world_size)
        self._weights = {}
        self._losses = []
        self.passes, self.undone = 0, False
        optimizer, kind = module.optimizers(), module.device.type
        self._reduced = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        with self._without_autocast():  # it is for the passes: products of matrices in an update are not to be rounded
            optimizer.step(closure=self._gradients)  # type: ignore[union-attr]
            if module.trainer.world_size > 1:
                share_statistics(module.model, module.trainer.world_size)
            for plugin in module.acting("after_step"):
                plugin.after_step(module, optimizer.optimizer)  # type: ignore[union-attr]

    def _split(self, data: Any) -> list[Batch]:
        module = self.module
        whole = module.clean_batch = module.as_batch(data)
        if module.parts == 1:
            return [whole]
        pieces = [Batch(x, {}, {}, epoch=whole.epoch) for x in pieces_of(whole.x, module.parts)]
        for task, labels in whole.labels.items():
            same, cut = whole.targets[task] is labels, labels.chunk(module.parts)
            for piece, part, target in zip(pieces, cut, whole.targets[task].chunk(module.parts), strict=True):
                piece.labels[task], piece.targets[task] = part, part if same else target
        for task, weight in whole.weight.items():
            for piece, part in zip(pieces, weight.chunk(module.parts), strict=True):
                piece.weight[task] = part
        for name in ("samples", "correction"):
            if (values := getattr(whole, name)) is not None:
                for piece, part in zip(pieces, values.chunk(module.parts), strict=True):
                    setattr(piece, name, part)
        return pieces

    def mean(self, values: Tensor, batch: Batch, task: str | None) -> Tensor:
        """The mean of values of samples, (samples,), or labels, as the loss is one in a pass: weighted, and divided once over a step, or a sum."""
        module = self.module
        if task not in self._weights:
            self._weights[task] = module.task_losses.weights(self._batches, module.trainer.world_size, task)
        if (total := self._weights[task]) is None:
            return values.mean()
        if (counted := batch.counted(task)) is not None:
            values = values * per_label(counted, values)
        total = total * (len(batch) / sum(map(len, self._batches)) / module.trainer.world_size)
        return values.sum() / total.where(total != 0, 1.0)

    def totals(self, share: float) -> dict[str, Tensor | float]:
        """What the losses of a part are divided by, where that is not its samples; its share is that in the samples of all processes."""
        return {task: total * share for task, total in self._totals.items()}

    def losses(self) -> Tensor:
        """The loss of each of several tasks in the first pass, (tasks,), over all parts and processes, which ask at the same time."""
        names = [task.name for task in self.module.setting.tasks]  # type: ignore[union-attr]
        parts = [torch.stack([losses[name] for name in names]) * share for losses, share in self._losses]
        return averaged(torch.stack(parts).sum(0), self.module.trainer.world_size)

    def _transform(self, part: int, batch: Batch, samples: int) -> Batch:
        steps, repeats = self.progress[0], max((plugin.repeats for plugin in self.module.plugins), default=1)
        self._set_clock(part, steps - steps % repeats)  # a batch that is repeated is drawn once
        self.module.recorder.weigh(len(batch) / samples)
        for plugin in self.module.acting("transform_batch"):
            batch = plugin.transform_batch(batch, self.module)
        return batch

    def _set_clock(self, part: int, steps: int) -> None:
        trainer = self.module.trainer
        self.module.draws.set_clock(steps, part, trainer.global_rank, trainer.world_size)

    def _gradients(self) -> Tensor:
        """The optimizer's closure: gradients of the same problem each time it is called within a step."""
        module = self.module
        first = self.passes == 0
        self.passes += 1
        if first:
            self._tell("on_before_zero_grad", module.optimizers(use_pl_optimizer=False))
        for parameter in self.parameters:
            parameter.grad = None
        self._tasks = self._task_gradients()
        # some optimizers ask for gradients with autograd switched off
        with torch.enable_grad(), self._autocast(), nullcontext() if first else kept_buffers(module.model):
            total = self._pass(0, first)
            for part in range(1, len(self._batches)):
                total = total + self._pass(part, first)
        module.draws.set_clock_of_step(self.progress[0])
        module.recorder.weigh(1.0 if first else None)
        if self._tasks is not None:
            self._tasks.write(lambda gradients: module.acting("aggregate")[0].aggregate(gradients, module))
            self._tasks = None
            self._tell("on_after_backward")
        module.recorder.weigh(1.0)
        if first:
            module.last_objective = total
        return total

    def _pass(self, part: int, first: bool) -> Tensor:
        module = self.module
        batch, scale = self._batches[part], len(self._batches[part]) / sum(map(len, self._batches))
        module.recorder.weigh(scale if first else None)
        self._set_clock(part, self.progress[0])
        module.draws.seed_forward(module.device)
        with self._around(batch), block_reduction(module.trainer, part == len(self._batches) - 1):
            with self._recording(), self._of_inputs(batch):
                outputs = module.outputs(batch.x)
            # micro-batches count by their samples, and gradients are averaged over processes: together the sums are divided once
            totals = self.totals(scale / module.trainer.world_size)
            weight = {task: counted for task in batch.targets if (counted := batch.counted(task)) is not None}
            losses = module.task_losses.minimized(outputs, batch.targets, weight, totals)
            plain = losses
            for plugin in module.acting("transform_losses"):
                losses = dict(plugin.transform_losses(losses, module, batch, outputs))
            total = module.task_losses.combine(losses)
            if not total.requires_grad:
                raise RecipeError("no gradient leads from the loss to the model: does its forward detach what it returns?")
            if first:
                self._measure(outputs, batch, plain)
                if len(losses) > 1:
                    self._losses.append(({task: loss.detach() for task, loss in losses.items()}, scale))
            terms = [
                term for plugin in module.acting("penalty") if (term := plugin.penalty(module, batch, outputs)) is not None
            ]
            module.recorded.forget()
            total = total + sum(terms) if terms else total
            with self._without_autocast():
                if self._tasks is None:
                    module.manual_backward(total * scale if scale != 1 else total)
                else:
                    self._tell("on_before_backward", total)
                    self._tasks.add(losses, sum(terms) if terms else None, scale)
        return total.detach() * scale if scale != 1 else total.detach()

    def _task_gradients(self) -> TaskGradients | None:
        """Where the gradients of several tasks go; None: one backward pass, as with a single task, makes the gradient."""
        module = self.module
        assert module.setting is not None
        if not module.acting("aggregate") or len(module.setting.tasks) == 1:
            return None
        names = [task.name for task in module.setting.tasks]
        return TaskGradients(self.parameters, names, getattr(module.trainer.precision_plugin, "scaler", None))

    def _tell(self, hook: str, *arguments: Any) -> None:
        """Call a hook of callbacks and of the module."""
        for callback in self.told[hook]:
            getattr(callback, hook)(self.module.trainer, self.module, *arguments)
        getattr(self.module, hook)(*arguments)

    def _around(self, batch: Batch) -> AbstractContextManager[Any]:
        if not self.module.acting("around_pass"):
            return nullcontext()
        stack = ExitStack()
        for plugin in self.module.acting("around_pass"):
            stack.enter_context(plugin.around_pass(self.module, batch))
        return stack

    def _recording(self) -> AbstractContextManager[Any]:
        """What options ask to be kept of the outputs within the model, in the pass that begins."""
        module = self.module
        if not module.recorded:
            return nullcontext()
        asking: list[Any] = [option for option in module.options if option.recorded and option.acts(self.progress)]
        parts = [part for option in asking if option.records(module) for part in option.recorded]
        return module.recorded.opened(parts) if parts else nullcontext()

    def _of_inputs(self, batch: Batch) -> AbstractContextManager[Any]:
        """The way in which a technique that asks for the gradient of the inputs too gets it soonest."""
        asked = isinstance(batch.x, Tensor) and batch.x.requires_grad
        return light_input_gradients(self.module.model) if asked else nullcontext()

    def _autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision as the trainer has it, for the passes; weights move between them, so no copies are kept."""
        if self._reduced is None:
            return nullcontext()
        return torch.autocast(self.module.device.type, self._reduced, cache_enabled=False)

    def _without_autocast(self) -> AbstractContextManager[Any]:
        kind = self.module.device.type
        return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()

    def _measure(self, outputs: Mapping[str, Tensor], batch: Batch, losses: Mapping[str, Tensor]) -> None:
        """Count loss and accuracy against the true targets and in their units, so that softened or standardized ones compare."""
        module = self.module
        outputs = {task: output.detach() for task, output in outputs.items()}
        changed = any(batch.targets[task] is not batch.labels[task] for task in batch.labels)
        if (
            changed
            or batch.weight
            or batch.correction is not None
            or self._totals
            or not module.task_losses.are_alike(batch.labels)
        ):
            losses = module.task_losses.reported(outputs, batch.labels)
        assert module.setting is not None
        add_metrics(module.recorder.train, module.setting, outputs, batch, losses, module)
