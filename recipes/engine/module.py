"""The one LightningModule: it takes a batch through all selected plugins to an update."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from itertools import chain, islice
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from plugins.base import (
    Batch,
    OptimizerWrapper,
    Plugin,
    RecipeError,
    Selection,
    Setting,
    Task,
    check_selection,
    derive_seed,
    implementers,
    needs_closure,
    order,
)
from plugins.parameters import named_parameters
from plugins.sites import evaluation_mode, is_compiled, kept_buffers, running_statistics, takes_tokens
from recipes.data.loaders import EvaluationLoader
from recipes.data.targets import as_outputs, as_target, by_task, expect_labels, expect_meant, kind_of, width_of
from recipes.engine.callbacks import BuildFirst, check_callbacks, stand_first
from recipes.engine.divergence import all_finite, diverged
from recipes.engine.logger import RunLogger
from recipes.engine.losses import TaskLoss
from recipes.engine.metrics import Confusion, Histogram, Means, correct, widest
from recipes.engine.schedules import check_schedule, step_plateaus, step_schedules
from recipes.engine.sharding import put_together_for_evaluation, shards
from recipes.engine.units import InTargetUnits, Standardized, column_moments, depends_on_difference, expect_fine_enough

log = logging.getLogger("recipes")

PER_STEP = ("transform_batch", "around_pass", "penalty", "backward", "combine", "transform_gradient", "after_step")
PER_EVALUATION = ("evaluation_weights", "predict", "measure", "after_validation")
MOST_CLASSES = 1000  # of a confusion matrix: a larger one nobody looks at


class RecipeModule(L.LightningModule):
    """Train a model with any set of plugins.

    A step of the optimizer is one batch of the loader, cut into `parts` that pass forward and backward one after the
    other (gradient accumulation). Whatever is random is a pure function of seed, owner, step and part.

    Args:
        model: maps raw inputs (samples, ...) to outputs (samples, outputs), or to a dict with one entry a task.
        loss: maps outputs and targets to a scalar averaged over the batch.
        optimizer: makes the optimizer from parameter groups, such as `functools.partial(torch.optim.Adam, lr=1e-3)`.
        scheduler: makes a learning rate scheduler from the optimizer and the number of steps; stepped after each step.
        seed: from which all random numbers are derived.
        parts: forward and backward passes a step, on this device.
        no_decay: which of "bias" and "norm" get no weight decay from the optimizer.
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
        log_every_n_steps: int = 50,
        compile: bool = False,
        standardize_targets: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.loss = loss
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.seed, self.parts, self.no_decay = seed, parts, tuple(no_decay)
        self.log_every_n_steps, self.compiled = log_every_n_steps, compile
        self.standardize_targets = standardize_targets
        self.setting: Setting | None = None
        self._losses: dict[str, TaskLoss] = {}  # by task
        self._objectives: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}  # what is minimized: of standardized targets
        self._takes_tokens = False  # whether whole numbers go in as they are
        self.plugins: list[Plugin] = []
        self.hooks: dict[str, list[Any]] = {name: [] for name in (*PER_STEP, *PER_EVALUATION)}
        self.phase: dict[str, Any] = {"index": 0, "steps": 0, "seconds": 0.0}
        self._began: float | None = None  # when training began, in this process
        self.metrics: dict[str, float] = {}  # the last published value of each
        self.logged: tuple[int, list[str]] = (
            -1,
            [],
        )  # the step of the last numbers given to loggers, and the names of all of it
        self._generators: dict[str, torch.Generator] = {}
        self._records: dict[str, Tensor | float] = {}
        self._histograms: dict[str, Histogram] = {}
        self._at_once: set[str] = set()  # names of what is to be logged after this step
        self._share: float | None = 1.0  # of the step's batch that is at work; None: it has been recorded already
        self._of_parts: dict[str, tuple[Tensor | float, float]] = {}  # weighted sums over the parts so far, and their weights
        self._before_clearing: list[L.Callback] = []  # callbacks with a hook that Lightning leaves out in manual optimization
        self.data_seen: str | None = None  # the fingerprint of the data, where it is known
        self.data_content: str | None = None  # the same of all samples, however they are split
        self.confusion: dict[str, list[list[int]]] = {}  # of the last test, by task: rows are true classes, columns predicted
        self._confusion: dict[str, Confusion] = {}
        self.clean_batch: Batch | None = None
        self._train, self._window = Means(), Means()
        self._passes, self._undone = 0, False  # of the last step
        self._evaluated: dict[str, Means] = {}
        self.positions: range | None = None  # which samples of their split an evaluation looks at
        self._dealt: dict[str, int] = {}  # samples that this process has had, by split
        self.rulers: dict[str, dict[str, Any]] = {}  # what the metrics of techniques were measured with, by their names
        self._evaluation = ExitStack()
        self._clock: tuple[int, int] = (0, 0)  # step and part, from which generators draw
        self._total_steps = 0  # for which the scheduler was made
        self._built = False

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
        rest = [callback for callback in callbacks if not isinstance(callback, Plugin | BuildFirst)]
        callbacks[:] = [*self.plugins, *rest]
        self._before_clearing = [callback for callback in callbacks if _defines(callback, "on_before_zero_grad")]

    def set_up(self, stage: str) -> None:
        """Build once, from the trainer's callbacks."""
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        given = [callback for callback in callbacks if isinstance(callback, Plugin)]
        if not self._built:
            self.build(given)
        elif new := [plugin.state_key for plugin in given if plugin not in self.plugins]:
            raise RecipeError(f"{new[0]} came after the model was built: make a new RecipeModule to train with it")
        for plugin in self.plugins if stage == "fit" else ():
            self._expect_arguments(plugin)
        if stage == "fit":
            check_callbacks(callbacks, self.plugins, self.model)

    def _expect_arguments(self, plugin: Plugin) -> None:
        """Refuse a Trainer that somebody made without what a technique asks of it."""
        for name, value in plugin.trainer_arguments().items():
            if (received := getattr(self.trainer, name, value)) != value:
                raise RecipeError(f"{plugin.state_key} needs L.Trainer({name}={value!r}), got {received!r}")

    def build(self, plugins: Iterable[Plugin], setting: Setting | None = None, **facts: Any) -> None:
        """Check the selection and let the plugins change the model, in their declared order."""
        self.plugins = order(plugins)
        self.setting = setting or self.setting or _setting_from_loader(self)
        facts = facts or self._facts()
        check_selection(Selection(self.plugins, self.setting, parts=self.parts, **facts))
        for plugin in self.plugins:
            plugin.prepare(self.setting)
        for plugin in implementers(self.plugins, "transform_model"):
            with own_draws(derive_seed(self.seed, "model", plugin.state_key), self.model):
                self.model = plugin.transform_model(self.model)
        if is_compiled(self.model):
            torch.compiler.reset()  # what was compiled before knows nothing of layers that were put in
        self.hooks = {name: implementers(self.plugins, name) for name in self.hooks}
        cut = [f"{n} {what}" for n, what in ((self.parts, "parts a step"), (facts.get("devices", 1), "devices")) if n > 1]
        self._losses = {task.name: TaskLoss(self.loss, task, " and ".join(cut)) for task in self.setting.tasks}
        self._objectives = dict(self._losses)
        self._standardize(str(facts.get("precision")))
        self._takes_tokens = takes_tokens(self.model)
        classifies = any(task.kind == "classification" for task in self.setting.tasks)
        if self.hooks["predict"] and classifies and not getattr(self.loss, "takes_logits", True):
            raise RecipeError(
                f"{self.hooks['predict'][0].state_key} makes probabilities of logits, which {type(self.loss).__name__} does not "
                f"train: take loss=cross_entropy"
            )
        for name in ("backward", "combine", "predict", "evaluation_weights"):
            if len(self.hooks[name]) > 1:
                both = " and ".join(plugin.state_key for plugin in self.hooks[name])
                raise RecipeError(f"{both} both want to {name.replace('_', ' ')}: leave one of them out")
        if self.compiled:
            self.model.compile()  # in place: parameters keep their names
        self._built = True

    def _standardize(self, precision: str) -> None:
        """Have regressions learned with mean 0 and deviation 1, where their loss means the same then."""
        assert self.setting is not None
        regressions = [task for task in self.setting.tasks if task.kind == "regression"]
        names = [task.name for task in regressions if depends_on_difference(self._losses[task.name], task.outputs)]
        if not names or not self.standardize_targets:
            return
        moments = None
        if (targets := self.setting.training_targets) is not None:
            found = {name: column_moments(target[name] for target in targets()) for name in names}
            widths = {task.name: task.outputs for task in regressions}
            moments = {name: numbers for name, numbers in found.items() if len(numbers[0]) == widths[name]}
            names = list(moments)  # an output for each column, or the loss will tell
            for mean, deviation in moments.values():
                expect_fine_enough(mean, deviation, precision)
        if not names:
            return
        units = InTargetUnits(self.model, self.setting.tasks, names, moments)
        self.model = units
        self._objectives |= {name: Standardized(self._losses[name], units, name) for name in names}

    def _facts(self) -> dict[str, Any]:
        return {
            "precision": str(self.trainer.precision),
            "devices": self.trainer.world_size,
            "compiled": self.compiled,
            "sharded": shards(self.trainer.strategy),
        }

    def configure_optimizers(self) -> Any:
        """The optimizer with its wrappers, and the scheduler."""
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise RecipeError(
                f"{type(self.model).__name__} has no parameter that is trained: leave some with requires_grad=True"
            )
        base = self.make_optimizer(parameter_groups(self.model, self.no_decay))
        wrappers = implementers(self.plugins, "wrap_optimizer")
        if needs_closure(base):
            self._expect_one_closure(type(base).__name__, wrappers)
        if self.hooks["transform_gradient"]:
            base.register_step_pre_hook(self._transform_gradients)
        wrapped = base
        for plugin in wrappers:
            wrapped = plugin.wrap_optimizer(wrapped)
        optimizer = wrapped if isinstance(wrapped, OptimizerWrapper) else OptimizerWrapper(wrapped)
        self._parameters_to_clear = list(self.model.parameters())
        if self.make_scheduler is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        self._total_steps = max(1, int(steps)) if steps != float("inf") else 0
        scheduler = self.make_scheduler(optimizer, self._total_steps)
        check_schedule(scheduler)
        named = {"name": f"lr-{type(base).__name__}", "interval": "step"}  # what callbacks want to know of it
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **named}}

    def _expect_one_closure(self, name: str, wrappers: Sequence[Plugin]) -> None:
        """Refuse what cannot be right beside an optimizer that decides itself how often it asks for gradients."""
        why = f"{name} asks for gradients several times a step"
        if wrappers:
            raise RecipeError(f"{why}, and so does {wrappers[0].state_key}: leave it out, or take another optimizer")
        if str(self.trainer.precision) == "16-mixed":
            raise RecipeError(f"{why}, which the scaled gradients of precision 16-mixed cannot: take bf16-mixed or 32-true")
        if self.trainer.world_size > 1:
            raise RecipeError(
                f"{why}, as often as the loss of each process tells, so they would wait for each other: train on one"
            )

    def _transform_gradients(self, optimizer: Optimizer, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Before an update: transform the gradients, or have them transformed each time the optimizer asks for them."""

        def transform() -> None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for plugin in self.hooks["transform_gradient"]:
                plugin.transform_gradient(self, parameters)

        closure = named.get("closure", arguments[1] if len(arguments) > 1 else None)
        if closure is None:
            transform()
            return None

        def transformed() -> Any:
            loss = closure()
            transform()
            return loss

        return arguments[:1], {**named, "closure": transformed}

    # ------------------------------------------------------------------ what plugins may use

    @property
    def steps_done(self) -> int:
        """Optimizer steps done in this phase."""
        return int(self.trainer.global_step) if self._trainer is not None else 0

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those of earlier phases and of the run before it was resumed included."""
        here = 0.0 if self._began is None else time.monotonic() - self._began
        return float(self.phase["seconds"]) + here

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """Do what is no training, and would make one technique look slower than another."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._began is not None:
                self._began += time.monotonic() - began

    def on_train_start(self) -> None:
        """Start the clock: what comes before, such as starting further processes, is no training."""
        self._began = time.monotonic()

    def generator(self, owner: str) -> torch.Generator:
        """The owner's random numbers for this step and part: adding a technique leaves the draws of the others alone."""
        generator = self._generators.get(owner)
        if generator is None or generator.device != self.device:
            generator = self._generators[owner] = torch.Generator(self.device)
        generator.manual_seed(derive_seed(self.seed, owner, *self._clock))
        return generator

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """The model's outputs for raw inputs, one entry a task."""
        return as_outputs(self.setting.tasks, self.model(x), len(x))  # type: ignore[union-attr]

    def losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each task as it is minimized: of standardized numbers where a regression is learned so."""
        return {task: self._objectives[task](outputs[task], target) for task, target in targets.items()}

    def measured_losses(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each task as it is reported: in the units of the targets."""
        return {task: self._losses[task](outputs[task], target) for task, target in targets.items()}

    def objective(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The losses of all tasks as one scalar."""
        return self._combine(self.losses(outputs, targets))

    def _combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        return self.hooks["combine"][0].combine(losses, self) if self.hooks["combine"] else total_of(losses)

    def record(self, name: str, value: Tensor | float, at_once: bool = False) -> None:
        """Remember a number until the next logging step; of the first pass of a step, and of its parts the mean."""
        if self._share is None:
            return
        value = value.detach() if isinstance(value, Tensor) else value
        if self._share != 1:
            total, weight = self._of_parts.get(name, (0.0, 0.0))
            self._of_parts[name] = total, weight = total + value * self._share, weight + self._share
            value = total / weight
        self._records[name] = value
        if at_once:
            self._at_once.add(name)

    def record_histogram(self, name: str, values: Tensor, at_once: bool = False) -> None:
        """Remember the histogram of values until the next logging step."""
        if self._share is None:
            return
        self._histograms[name] = Histogram.of(values)
        if at_once:
            self._at_once.add(name)

    def forget_step(self) -> None:
        """Leave the last step out of the training metrics: it was undone."""
        self._train, self._undone = self._before, True

    def evaluate_training(self, limit: int) -> dict[str, float]:
        """Loss and accuracy on up to `limit` clean training samples in evaluation mode."""
        means = Means()
        with evaluation_mode(self.model), torch.no_grad():
            for data in clean_batches(self.trainer.train_dataloader, limit):
                batch = self.as_batch(self.transfer_batch_to_device(data, self.device, 0))
                outputs = self.outputs(batch.x)
                self._add_metrics(means, outputs, batch, total_of(self.measured_losses(outputs, batch.labels)))
        return means.compute()

    # ------------------------------------------------------------------ a step

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One update: transform the batch once, then let the optimizer ask for gradients as often as it likes."""
        pieces = self._split(batch)
        self._samples, self._of_parts = sum(map(len, pieces)), {}
        self._batches = [self._transform(part, piece) for part, piece in enumerate(pieces)]
        self._share = 1.0
        self._passes, self._before, self._undone = 0, self._train.copy(), False
        optimizer = self.optimizers()
        optimizer.step(closure=self._gradients)  # type: ignore[union-attr]
        self._share_statistics()
        for plugin in self.hooks["after_step"]:
            plugin.after_step(self, optimizer.optimizer)  # type: ignore[union-attr]
        step_schedules(self.trainer)
        if self.steps_done % self.log_every_n_steps == 0:
            self._log_step()
            self.expect_finite()
        elif self._at_once:
            self._log_at_once()
        self._at_once = set()
        self._seed_between()
        return self.last_objective

    def expect_finite(self) -> bool:
        """Whether weights, and the loss of the last step, are finite, on all processes alike; see `_diverged` for where not.

        A step that a technique has undone counts for nothing; nor does a loss in 16-mixed, where loss scaling leaves such steps out.
        """
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        counts = not self._undone and str(self.trainer.precision) != "16-mixed" and self._passes > 0
        finite = all_finite([*trained, *([self.last_objective] if counts else [])])
        return finite or self._diverged("loss or weights became")

    def expect_finite_loss(self, split: str) -> bool:
        """Whether the loss that the last evaluation has found is finite; see `_diverged` for where not."""
        return math.isfinite(self.metrics.get(f"{split}/loss", 0.0)) or self._diverged(f"{split}/loss became")

    def _diverged(self, what: str) -> bool:
        """End a training that has diverged: with the good weights that a technique has kept or, without any, by raising."""
        error = diverged(self, what)
        if not any(plugin.recovers for plugin in self.plugins):
            self._evaluation.close()
            raise error
        if not self.trainer.should_stop:
            log.warning("%s; the training ends with the best weights so far", error)
        self.trainer.should_stop = True
        return False

    def _share_statistics(self) -> None:
        """Average the running statistics of norm layers over the processes, so that all evaluate, and save, one model."""
        if self.trainer.world_size == 1:
            return
        if statistics := running_statistics(self.model):  # as they are now: a forward pass may have replaced them
            flat = torch.cat([numbers.flatten() for numbers in statistics])
            dist.all_reduce(flat)
            pieces = (flat / self.trainer.world_size).split([numbers.numel() for numbers in statistics])
            for numbers, piece in zip(statistics, pieces, strict=True):
                numbers.copy_(piece.view_as(numbers))

    def _seed_between(self) -> None:
        """Seed the global generator for what draws between two steps, such as the order of a shuffling DataLoader.

        A function of the step alone, it is the same with every technique and after a resume, and another in each epoch.
        """
        seed_global(derive_seed(self.seed, "between", self.steps_done), self.device)

    def _split(self, batch: Any) -> list[Batch]:
        whole = self.clean_batch = self.as_batch(batch)
        if self.parts == 1:
            return [whole]
        return [
            Batch(x, dict(zip(whole.targets, targets, strict=True)), dict(zip(whole.targets, targets, strict=True)))
            for x, *targets in zip(
                whole.x.chunk(self.parts), *(target.chunk(self.parts) for target in whole.targets.values()), strict=True
            )
        ]

    def _transform(self, part: int, batch: Batch) -> Batch:
        self._set_clock(part)
        self._share = len(batch) / self._samples
        for plugin in self.hooks["transform_batch"]:
            batch = plugin.transform_batch(batch, self)
        return batch

    def _set_clock(self, part: int) -> None:
        # Two ranks with one part each draw what one rank with two parts draws: so the two can be compared exactly.
        world = self.trainer.world_size
        self._clock = (self.steps_done, part * world + self.trainer.global_rank if world > 1 else part)

    def _gradients(self) -> Tensor:
        """The optimizer's closure: gradients of the same problem each time it is called within a step."""
        first = self._passes == 0
        self._passes += 1
        if first:
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            for callback in self._before_clearing:
                callback.on_before_zero_grad(self.trainer, self, optimizer)
            self.on_before_zero_grad(optimizer)
        for parameter in self._parameters_to_clear:
            parameter.grad = None
        # some optimizers ask for gradients with autograd switched off
        with torch.enable_grad(), nullcontext() if first else kept_buffers(self.model):
            total = self._pass(0, first)
            for part in range(1, len(self._batches)):
                total = total + self._pass(part, first)
        self._share = 1.0
        if first:
            self.last_objective = total
        return total

    def _pass(self, part: int, first: bool) -> Tensor:
        batch, scale = self._batches[part], len(self._batches[part]) / sum(map(len, self._batches))
        self._share = scale if first else None
        self._set_clock(part)
        seed_global(derive_seed(self.seed, "forward", *self._clock), self.device)
        with self._around(batch), self._reduced(part == len(self._batches) - 1):
            outputs = self.outputs(batch.x)
            losses = self.losses(outputs, batch.targets)
            total = self._combine(losses)
            if not total.requires_grad:
                raise RecipeError("no gradient leads from the loss to the model: does its forward detach what it returns?")
            if first:
                self._measure_training(outputs, batch, losses)
            terms = [term for plugin in self.hooks["penalty"] if (term := plugin.penalty(self, batch, outputs)) is not None]
            if self.hooks["backward"]:
                self.hooks["backward"][0].backward(losses, self, scale)
                if terms:
                    self._add_gradient(sum(terms), scale)
                total = total + sum(terms)
            else:
                total = total + sum(terms) if terms else total
                with (
                    torch.autocast(self.device.type, enabled=False)
                    if torch.is_autocast_enabled(self.device.type)
                    else nullcontext()
                ):
                    self.manual_backward(total * scale if scale != 1 else total)
        return total.detach() * scale if scale != 1 else total.detach()

    def _around(self, batch: Batch) -> AbstractContextManager[Any]:
        if not self.hooks["around_pass"]:
            return nullcontext()
        stack = ExitStack()
        for plugin in self.hooks["around_pass"]:
            stack.enter_context(plugin.around_pass(self, batch))
        return stack

    def _reduced(self, last: bool) -> AbstractContextManager[Any]:
        if last or self.trainer.world_size == 1:
            return nullcontext()
        return self.trainer.strategy.block_backward_sync()  # type: ignore[attr-defined]

    def _add_gradient(self, objective: Tensor, scale: float) -> None:
        """Add `scale` times the gradient of `objective`, averaged over ranks, beside a plugin's own backward pass."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(objective * scale, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                if dist.is_initialized():
                    dist.all_reduce(gradient)
                    gradient = gradient / dist.get_world_size()
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _measure_training(self, outputs: Mapping[str, Tensor], batch: Batch, losses: Mapping[str, Tensor]) -> None:
        outputs = {task: output.detach() for task, output in outputs.items()}
        softened = any(batch.targets[task] is not batch.labels[task] for task in batch.labels)
        if softened or any(self._objectives[task] is not self._losses[task] for task in batch.labels):
            # against the true targets and in their units, so that runs with and without softened or standardized ones compare
            losses = self.measured_losses(outputs, batch.labels)
        self._add_metrics(self._train, outputs, batch, total_of(losses))

    def _add_metrics(self, means: Means, outputs: Mapping[str, Tensor], batch: Batch, loss: Tensor) -> None:
        means.add("loss", loss, len(batch))
        tasks = [task for task in self.setting.tasks if task.kind == "classification"]  # type: ignore[union-attr]
        for task in tasks:
            hits = correct(outputs[task.name], batch.labels[task.name])
            if len(self.setting.tasks) > 1:  # type: ignore[union-attr]
                means.add(f"{task.name}/acc", hits, len(batch), summed=True)
            means.add("acc", hits / len(tasks) if len(tasks) > 1 else hits, len(batch) if task is tasks[0] else 0, summed=True)

    # ------------------------------------------------------------------ evaluation

    def on_validation_model_eval(self) -> None:
        """Evaluation mode, with the weights in place that are evaluated and saved: averaged ones where there is an average."""
        self._evaluation.enter_context(evaluation_mode(self))
        if dist.is_initialized():
            share_buffers(self.model)
        for plugin in self.hooks["evaluation_weights"]:
            self._evaluation.enter_context(plugin.evaluation_weights(self))
        self._evaluation.enter_context(put_together_for_evaluation(self.model))

    def on_validation_model_train(self) -> None:
        """Put the training weights and modes back."""
        self._evaluation.close()

    on_test_model_eval = on_validation_model_eval
    on_test_model_train = on_validation_model_train

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._evaluated["val"] = Means()

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self._evaluated["test"] = Means()
        self._confusion = {
            task.name: Confusion(task.outputs, self.device)
            for task in self.setting.tasks  # type: ignore[union-attr]
            if task.kind == "classification" and 2 <= task.outputs <= MOST_CLASSES
        }

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Metrics of a validation batch."""
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Metrics of a test batch."""
        self._evaluate(batch, batch_idx, "test")

    def _evaluate(self, data: Any, index: int, split: str) -> None:
        batch, means = self.as_batch(data), self._evaluated[split]
        self.positions = batch.positions = self._positions(split, index, len(batch))
        rank = self.trainer.global_rank
        seed_global(derive_seed(self.seed, split, index, rank), self.device)
        outputs = self.predictions_as_outputs(batch.x) if self.hooks["predict"] else self.outputs(batch.x)
        losses = self.measured_losses(outputs, batch.labels)
        self._add_metrics(means, outputs, batch, total_of(losses))  # unweighted, so that weightings of tasks compare
        for task, confusion in self._confusion.items() if split == "test" else ():
            confusion.add(outputs[task], batch.labels[task])
        if len(losses) > 1:
            for task, loss in losses.items():
                means.add(f"{task}/loss", loss, len(batch))
        for plugin in self.hooks["measure"]:
            for name, values in plugin.measure(self, batch, outputs, split).items():
                means.add(name, values.to(widest(values.device)).sum(), len(values), summed=True)
                self.rulers.setdefault(name, dict(plugin.ruler(name)))

    def _positions(self, split: str, index: int, samples: int) -> range:
        """Which samples of the split a batch has: ours say so, others deal them out to the processes one by one."""
        loader = self.trainer.val_dataloaders if split == "val" else self.trainer.test_dataloaders
        if isinstance(loader, EvaluationLoader):
            return loader.positions(index)
        rank, world = self.trainer.global_rank, self.trainer.world_size
        first = self._dealt.get(split, 0) if index else 0
        self._dealt[split] = first + samples
        return range(first * world + rank, (first + samples) * world + rank, world)

    def predictions_as_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Predicted probabilities as log-probabilities, which every loss and metric takes like logits."""
        predictions = self.hooks["predict"][0].predict(self, x)
        kinds = {task.name: task.kind for task in self.setting.tasks}  # type: ignore[union-attr]
        return {
            task: value.clamp_min(torch.finfo(value.dtype).tiny).log() if kinds[task] == "classification" else value
            for task, value in predictions.items()
        }

    def on_validation_epoch_end(self) -> None:
        """Publish validation metrics, and the training metrics since the last validation beside them."""
        metrics = {f"val/{name}": value for name, value in self._evaluated["val"].compute().items()}
        self._seed_between()
        if self.trainer.sanity_checking:
            return
        if self._train.counts:
            metrics |= {f"train/{name}": value for name, value in self._train.compute().items()}
            if "train/acc" in metrics:
                metrics["gap/acc"] = metrics["train/acc"] - metrics["val/acc"]
            self._train, self._window = Means(), Means()
        if self.trainer.state.fn == "fit":
            for plugin in self.hooks["after_validation"]:
                found = plugin.after_validation(self, metrics)
                self.rulers |= {name: dict(plugin.ruler(name)) for name in found}
                metrics |= found
        self.publish({**metrics, "epoch": self.steps_done / max(1, self.trainer.num_training_batches)})
        if self.trainer.state.fn == "fit":
            if self.expect_finite():  # a weight that is infinite may hide behind a good loss
                self.expect_finite_loss("val")
            step_plateaus(self.trainer, metrics)

    def on_test_epoch_end(self) -> None:
        """Publish test metrics."""
        self._seed_between()
        self.confusion = {task: confusion.compute() for task, confusion in self._confusion.items()}
        self.publish({f"test/{name}": value for name, value in self._evaluated["test"].compute().items()})

    def publish(self, metrics: Mapping[str, float]) -> None:
        """Give metrics to the loggers and, under the same names, to callbacks that monitor."""
        self.metrics.update(metrics)
        numbers = " ".join(f"{name} {value:.6g}" for name, value in metrics.items())
        log.info("step %d: %s", self.steps_done + self.phase["steps"], numbers)
        monitored = {name: value for name, value in metrics.items() if name != "epoch"}
        ours = any(isinstance(logger, RunLogger) for logger in self.trainer.loggers)
        # loggers of a run get steps that go on over phases; anybody else's are left to Lightning
        with warnings.catch_warnings():
            # with `logger` Lightning also returns them from trainer.test; that there is none needs no warning
            warnings.filterwarnings("ignore", message=".*no logger configured")
            self.log_dict(monitored, logger=not ours, sync_dist=self.trainer.world_size > 1)
        if ours:
            self.write(metrics)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Give metrics to the loggers, at the step they belong to."""
        step = self.steps_done + self.phase["steps"]
        self.logged = (step, [*(self.logged[1] if self.logged[0] == step else []), *metrics])
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(metrics), step=step)

    def running(self) -> dict[str, float]:
        """Loss and accuracy since the last validation, on this rank; reads from the device."""
        return self._train.since(Means())

    def _log_step(self) -> None:
        if self.trainer.loggers:
            now = self._train.since(self._window)
            metrics = {f"step/{name}": value for name, value in now.items()}
            metrics["lr"] = float(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
            metrics |= {name: float(value) for name, value in self._records.items()}
            self.write(metrics)
            self._log_histograms(self._histograms)
        self._window = self._train.copy()
        self._records, self._histograms = {}, {}

    def _log_at_once(self) -> None:
        """Log, between two logging steps, what is measured at an interval of its own."""
        records = {name: float(self._records.pop(name)) for name in sorted(self._at_once & self._records.keys())}
        histograms = {name: self._histograms.pop(name) for name in sorted(self._at_once & self._histograms.keys())}
        if self.trainer.loggers:
            if records:
                self.write(records)
            self._log_histograms(histograms)

    def _log_histograms(self, histograms: Mapping[str, Histogram]) -> None:
        for logger in self.trainer.loggers:
            if histograms and hasattr(logger, "log_histograms"):
                logger.log_histograms(histograms, step=self.steps_done + self.phase["steps"])

    def on_train_end(self) -> None:
        """Log the last step, whatever the interval: a training that is shorter would tell nothing of a technique.

        A training whose weights are good for nothing does not end well.
        """
        if not self.trainer.should_stop:
            self.expect_finite()
        if not self.trainer.loggers or not self.steps_done:
            return
        at, names = self.logged
        if at != self.steps_done + self.phase["steps"] or "lr" not in names:
            self._log_step()
        else:  # what came after the last row
            self._at_once = {*self._records, *self._histograms}
            self._log_at_once()

    # ------------------------------------------------------------------ checkpoints and batches

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch; one of our loaders, which is there already, need not be searched for tensors."""
        if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[1], dict):
            inside = (batch[0], *batch[1].values())
            if all(isinstance(value, Tensor) and value.device == device for value in inside):
                return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed or evaluated run needs beside weights and optimizer."""
        assert self.setting is not None
        checkpoint["recipe"] = {
            "seed": self.seed,
            "phase": {**self.phase, "seconds": self.seconds},
            "shape": list(self.setting.shape),
            "data": self.data_seen,
            "content": self.data_content,
            "tasks": [asdict(task) for task in self.setting.tasks],
            "metrics": dict(self.metrics),
            "logged": list(self.logged),
            "total_steps": self._total_steps,
            "train": self._train.state_dict(),
            "window": self._window.state_dict(),
            "records": {name: float(value) for name, value in self._records.items()},
            "histograms": {name: histogram.state_dict() for name, histogram in self._histograms.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where the checkpoint was saved."""
        kept = checkpoint["recipe"]
        self.phase = kept["phase"]
        self.metrics = dict(kept["metrics"])
        self.logged = tuple(kept.get("logged", self.logged))  # older checkpoints have none
        place = (0, 1) if self._trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        self._train, self._window = (Means.from_state(kept[name], *place) for name in ("train", "window"))
        self._records = dict(kept["records"])
        histograms = kept.get("histograms", {})  # older checkpoints have none
        self._histograms = {name: Histogram.from_state(state) for name, state in histograms.items()}

    def as_batch(self, data: Any) -> Batch:
        """A batch from what a loader yields: (inputs, targets), targets being a tensor or a dict with one entry a task."""
        x, given = pair(data)
        tasks = self.setting.tasks  # type: ignore[union-attr]
        named = {tasks[0].name: given} if isinstance(given, Tensor) else given
        if set(named) != {task.name for task in tasks}:
            raise RecipeError(f"a batch has the targets {', '.join(named)}, expected {', '.join(task.name for task in tasks)}")
        looked_at = self.data_seen is not None  # as a whole, when it was loaded
        targets = {task.name: as_target(task, named[task.name], looked_at and named[task.name].is_cuda) for task in tasks}
        if not x.is_floating_point():
            if self._takes_tokens and x.dtype != torch.uint8:
                return Batch(x, targets, dict(targets))
            x = to_unit_range(x)
        if x.dtype != (dtype := dtype_of(self.model, self.dtype)):
            x = x.to(dtype)  # the precisions in which the whole model is kept, such as bf16-true
        return Batch(x, targets, dict(targets))


def dtype_of(model: nn.Module, otherwise: Any) -> Any:
    """The kind of floats that a model takes: that of its first parameter of floats."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), otherwise)


def pair(data: Any) -> tuple[Tensor, Tensor | dict[str, Tensor]]:
    """Inputs and targets of what a loader yields; anything else is refused."""
    known = isinstance(data, (tuple, list)) and len(data) == 2
    x, targets = data if known else (None, None)
    named = targets.values() if isinstance(targets, dict) else [targets]
    if not isinstance(x, Tensor) or not named or not all(isinstance(target, Tensor) and target.ndim for target in named):
        got = f"a {type(data).__name__} of {len(data)}" if isinstance(data, (tuple, list, dict)) else f"a {type(data).__name__}"
        got += f" with {', '.join(map(str, data))}" if isinstance(data, dict) else ""
        raise RecipeError(
            f"a loader must yield (inputs, targets), targets being a tensor or a dict of tensors with one entry a task; got {got}"
        )
    return x, targets  # type: ignore[return-value]


def to_unit_range(x: Tensor) -> Tensor:
    """Bytes of an image as numbers in [0, 1]; other whole numbers as they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x.float()


def parameter_groups(model: nn.Module, no_decay: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Parameter groups in which biases or parameters of norm layers get no weight decay."""
    if unknown := set(no_decay) - {"bias", "norm"}:
        raise RecipeError(f"optimizer.no_decay must name bias or norm, got {', '.join(sorted(unknown))}")
    if not no_decay:
        return [{"params": list(model.parameters())}]
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for named in named_parameters(model):
        (free if named.kind in no_decay else decayed).append(named.parameter)
    return [group for group in ({"params": decayed}, {"params": free, "weight_decay": 0.0}) if group["params"]]


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the generators that a forward pass draws from: cheaper than torch.manual_seed, which visits every backend."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def own_draws(seed: int, model: nn.Module) -> Iterator[None]:
    """Have the global generators, from which layers draw their initial weights, start from a seed; they come back as they were."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type != "cpu"}
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices if device.type == "cuda"]):
        for device in devices or {torch.device("cpu")}:
            seed_global(seed, device)
        yield


def _defines(callback: L.Callback, hook: str) -> bool:
    """Whether a callback does something in a hook; some have it in the instance."""
    return hook in vars(callback) or getattr(type(callback), hook) is not getattr(L.Callback, hook)


def total_of(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses of all tasks."""
    first, *others = losses.values()
    return sum(others, first)


def clean_batches(loader: Any, limit: int) -> Iterator[Any]:
    """Batches of up to `limit` training samples, from our loader or from anybody's."""
    if hasattr(loader, "evaluation_batches"):
        yield from loader.evaluation_batches(limit)
        return
    for x, targets in batches_aside(loader):
        if limit <= 0:
            return
        yield (
            x[:limit],
            {name: target[:limit] for name, target in targets.items()} if isinstance(targets, dict) else targets[:limit],
        )
        limit -= len(x)


def batches_aside(loader: Any) -> Iterator[Any]:
    """The batches of a loader, whose draws for the order leave its generator and the global one as they were."""
    own = [getattr(owner, "generator", None) for owner in (loader, getattr(loader, "sampler", None))]
    states = [(generator, generator.get_state()) for generator in own if generator is not None]
    try:
        with torch.random.fork_rng(devices=[]):
            iterator = iter(loader)
            first = list(islice(iterator, 1))
        yield from chain(first, iterator)
    finally:
        for generator, state in states:
            generator.set_state(state)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of the first one: those of norm layers are the same already, others may not be."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for buffer in model.buffers():
        by_type.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_type.values():
        together = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(together, 0)
        for buffer, values in zip(buffers, together.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def _setting_from_loader(module: RecipeModule) -> Setting:
    """What a plain DataLoader tells about the data, for those who bring one of their own."""
    trainer = module.trainer
    loop = {"validate": trainer.validate_loop, "test": trainer.test_loop}.get(
        str(trainer.state.fn and trainer.state.fn.value), trainer.fit_loop
    )
    loader = loop._data_source.dataloader()
    loader = loader[0] if isinstance(loader, (list, tuple)) else loader
    try:
        x, targets = pair(next(batches_aside(loader)))
    except TypeError:
        raise RecipeError("a loader must yield (inputs, targets), targets being a tensor or a dict of tensors") from None
    except StopIteration:
        raise RecipeError("the loader yields nothing: it must yield (inputs, targets)") from None
    samples, tokens = len(x), takes_tokens(module.model) and not x.is_floating_point() and x.dtype != torch.uint8
    x = x if x.is_floating_point() or tokens else to_unit_range(x)
    named = targets if isinstance(targets, dict) else {"": targets}
    if any(len(target) != samples for target in named.values()):
        raise RecipeError("a loader must yield as many targets as inputs")
    place = next(module.model.parameters(), x)
    with evaluation_mode(module.model), torch.no_grad():
        outputs = module.model(x[:2].to(place.device, None if tokens else dtype_of(module.model, x.dtype)))
    several = len(named) > 1 and isinstance(outputs, Tensor)  # heads will be made to measure
    by_name = {} if several else by_task(list(named), outputs)
    tasks = []
    for name, target in named.items():
        kind = kind_of(name, target)
        expect_meant(name, target, "give the labels as whole numbers; a regression on such numbers takes targets (samples, 1)")
        if not several:
            tasks.append(Task(name, kind, width_of(name, kind, by_name[name])))
            expect_labels(name, target, tasks[-1].outputs)
        elif kind == "regression":
            tasks.append(Task(name, kind, 1 if target.ndim == 1 else target.shape[1]))
        else:
            tasks.append(Task(name, kind, 1 + max(int(targets[name].max()) for _, targets in batches_aside(loader))))

    def training_inputs() -> Iterator[Tensor]:
        for inputs, _ in batches_aside(loader):
            yield inputs if inputs.is_floating_point() or tokens else to_unit_range(inputs)

    def training_targets() -> Iterator[dict[str, Tensor]]:
        for _, given in batches_aside(loader):
            yield given if isinstance(given, dict) else {"": given}

    regression = any(task.kind == "regression" for task in tasks)
    if regression and not has_length(loader) and module.standardize_targets:  # it may never end
        log.warning("the loader has no length, so the targets are learned as they are, not standardized")
        module.standardize_targets = False
    return Setting(tuple(x.shape[1:]), tuple(tasks), module.seed, training_inputs, None, training_targets)


def has_length(loader: Any) -> bool:
    """Whether a loader tells how many batches it has."""
    try:
        return len(loader) >= 0
    except (TypeError, NotImplementedError):
        return False
