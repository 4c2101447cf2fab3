"""Validation and test: the weights that are evaluated, the metrics of all batches, the confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from plugins.base import Batch
from plugins.counting import precise, widest
from plugins.inputs import Inputs, concatenated, each, some
from plugins.sites import evaluation_mode
from recipes.data.loaders import EvaluationLoader
from recipes.engine.calibration import calibrate, training_loader
from recipes.engine.divergence import expect_finite, expect_finite_loss
from recipes.engine.loading import clean_batches
from recipes.engine.measuring import Measuring
from recipes.engine.metrics import Confusion, Means
from recipes.engine.parts import Whole
from recipes.engine.portions import Portions, portion
from recipes.engine.recorder import add_metrics
from recipes.engine.schedules import step_plateaus
from recipes.engine.sharding import put_together_for_evaluation
from recipes.engine.sync import share_buffers
from recipes.engine.tallies import Tally, tallies_of

MOST_CLASSES = 1000  # of a confusion matrix: a larger one nobody looks at


@dataclass(frozen=True)
class Counted:
    """Some samples, what the model makes of them, and their means."""

    batch: Batch
    outputs: dict[str, Tensor]
    means: Means


class Evaluation:
    """The evaluations of a :class:`RecipeModule`, on one split after the other."""

    def __init__(self, module: Whole) -> None:
        self.module = module
        self._weights = ExitStack()  # open while the weights that are evaluated are in place
        self._in_place = False
        self._means: dict[str, Means] = {}  # by split
        self._confusion: dict[str, Confusion] = {}  # by task
        self._tallies: dict[str, Tally] = {}  # of the test, by task
        self._measuring: dict[str, Measuring] = {}  # by split
        self.portions = Portions()
        self._dealt: dict[str, int] = {}  # samples that this process has had, by split

    def put_weights(self) -> None:
        """Evaluation mode, with the weights in place that are evaluated and saved: averaged ones where there is an average."""
        module, self._in_place = self.module, True
        self._weights.enter_context(evaluation_mode(module))
        if dist.is_initialized():
            share_buffers(module.model)
        for plugin in module.hooks["evaluation_weights"]:
            self._weights.enter_context(plugin.evaluation_weights(module))
        self._weights.enter_context(put_together_for_evaluation(module.model))
        if module.hooks["calibrate"] and module.trainer.state.fn == "fit":
            calibrate(module)

    def settle(self) -> None:
        """Calibrate what a training has ended with, but for weights that a technique has put back, with what was found for them."""
        if self.module.hooks["calibrate"] and not any(plugin.recovers for plugin in self.module.plugins):
            with self.in_place():
                pass

    def put_back(self) -> None:
        """Put the training weights and modes back."""
        self._in_place = False
        self._weights.close()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The weights that are evaluated, put in place and back if they are not there already."""
        if self._in_place:
            yield
            return
        try:
            self.put_weights()
            yield
        finally:
            self.put_back()

    def begin(self, split: str) -> None:
        """Start counting; `val` or `test`."""
        self._means[split] = Means()
        if self.module.hooks["metrics"]:
            self._measuring[split] = Measuring(self.module)
        if split == "test":
            self._confusion = {
                task.name: Confusion(task, self.module.device)
                for task in self.module.setting.tasks  # type: ignore[union-attr]
                if task.kind == "classification" and 2 <= task.outputs <= MOST_CLASSES
            }
            self._tallies = tallies_of(self.module, self.module.trainer.test_dataloaders)

    def add(self, data: Any, index: int, split: str) -> None:
        """Count a batch of a split."""
        module = self.module
        whole = module.as_batch(data)
        whole.positions = self._positions(split, index, len(whole))

        def look(start: int, stop: int) -> Counted:
            batch = portion(whole, start, stop)
            module.positions = batch.positions
            module.draws.seed_evaluation(split, index, module.trainer.global_rank, module.device, start)
            return self._counted(batch, split)

        for counted in self.portions.of(len(whole), look):
            self._means[split].add_all(counted.means)
            for task, confusion in self._confusion.items() if split == "test" else ():
                confusion.add(counted.outputs[task], counted.batch.labels[task])
            for task, tally in self._tallies.items() if split == "test" else ():
                tally.add(counted.outputs[task], counted.batch.labels[task])
            if split in self._measuring:
                self._measuring[split].add(counted.outputs, counted.batch)

    def _counted(self, batch: Batch, split: str) -> Counted:
        """What there is to count of some samples."""
        module, means = self.module, Means()
        assert module.setting is not None
        outputs = self._predictions(batch.x) if module.hooks["predict"] else module.outputs(batch.x)
        losses = module.task_losses.reported(outputs, batch.labels)
        # unweighted, so that weightings of tasks compare
        add_metrics(means, module.setting, outputs, batch, losses, module)
        if len(losses) > 1:
            counts = module.task_losses.counts(batch.labels)
            for task, loss in losses.items():
                means.add(f"{task}/loss", loss, counts.get(task, len(batch)))
        for plugin in module.hooks["measure"]:
            for name, found in plugin.measure(module, batch, outputs, split).items():
                values, samples = self._that_count(batch, found)
                means.add(name, values.sum(), samples, summed=True)
                module.rulers.setdefault(name, dict(plugin.ruler(name)))
        return Counted(batch, outputs, means)

    def predict(self, data: Any, index: int) -> dict[str, Tensor]:
        """What is predicted for a batch of inputs, by task: class probabilities (samples, classes, *places), those of labels, or numbers.

        Whatever draws at an evaluation draws as at a test of the same samples.
        """
        module = self.module
        x = module.inputs_of(data[0] if isinstance(data, tuple | list) else data)
        samples = len(some(x))
        positions = self._positions("predict", index, samples)

        def look(start: int, stop: int) -> dict[str, Tensor]:
            module.positions = positions[start:stop]
            module.draws.seed_evaluation("test", index, module.trainer.global_rank, module.device, start)
            return self.predicted(x if stop - start == samples else each(x, lambda x: x[start:stop]))

        found = list(self.portions.of(samples, look))
        return found[0] if len(found) == 1 else concatenated(found)

    def predicted(self, x: Inputs) -> dict[str, Tensor]:
        """The same for inputs as the model takes them, with the weights and random numbers that there are, in at least 32 bits."""
        module = self.module
        outputs = self._predictions(x) if module.hooks["predict"] else module.outputs(x)
        return {task.name: task.probabilities(precise(outputs[task.name])) for task in module.setting.tasks}  # type: ignore[union-attr]

    def of_training(self, limit: int) -> dict[str, float]:
        """Loss and accuracy on up to `limit` clean training samples in evaluation mode, predicted as those of a validation are.

        Whatever draws draws as at a validation; the random numbers of the training stay where they were.
        """
        module, means, seen = self.module, Means(), 0
        assert module.setting is not None
        rank, world = module.trainer.global_rank, module.trainer.world_size
        precision = module.trainer.precision_plugin.forward_context()
        devices = [module.device] if module.device.type == "cuda" else []
        with self.in_place(), evaluation_mode(module.model), torch.no_grad(), precision, torch.random.fork_rng(devices):
            for index, data in enumerate(clean_batches(training_loader(module.trainer), limit)):
                whole = module.as_batch(module.transfer_batch_to_device(data, module.device, 0))
                whole.positions = range(seen * world + rank, (seen + len(whole)) * world + rank, world)
                seen += len(whole)
                for found in self.portions.of(len(whole), partial(self._of_clean, whole, index)):
                    means.add_all(found)
        return means.compute()

    def _of_clean(self, whole: Batch, index: int, start: int, stop: int) -> Means:
        """The same of some samples of a batch."""
        module, means, batch = self.module, Means(), portion(whole, start, stop)
        assert module.setting is not None
        module.positions = batch.positions
        module.draws.seed_evaluation("train", index, module.trainer.global_rank, module.device, start)
        outputs = self._predictions(batch.x) if module.hooks["predict"] else module.outputs(batch.x)
        add_metrics(means, module.setting, outputs, batch, module.task_losses.reported(outputs, batch.labels), module)
        return means

    def metrics(self, split: str) -> dict[str, float]:
        """What was counted, over all processes, by the names that are published."""
        found = self._means[split].compute()
        if split in self._measuring:
            found |= self._measuring.pop(split).compute()
        return {f"{split}/{name}": value for name, value in found.items()}

    def publish(self) -> None:
        """Publish the metrics of a validation, and those of the training since the last one beside them."""
        module = self.module
        metrics = self.metrics("val")
        module.draws.seed_between(module.steps_done, module.device)
        if module.trainer.sanity_checking:
            return
        metrics |= {f"train/{name}": value for name, value in module.recorder.take_training().items()}
        if "train/acc" in metrics:
            metrics["gap/acc"] = metrics["train/acc"] - metrics["val/acc"]
        trains = module.trainer.state.fn == "fit"
        for plugin in module.hooks["after_validation"] if trains else ():
            found = plugin.after_validation(module, metrics)
            module.rulers |= {name: dict(plugin.ruler(name)) for name in found}
            metrics |= found
        module.recorder.publish({**metrics, "epoch": module.steps_done / max(1, module.trainer.num_training_batches)})
        if trains:
            if expect_finite(module):  # a weight that is infinite may hide behind a good loss
                expect_finite_loss(module, "val")
            step_plateaus(module.trainer, metrics)

    def confusion(self) -> dict[str, list[list[int]]]:
        """The confusion matrices of the last test, by task: rows are true classes, columns predicted."""
        return {task: confusion.compute() for task, confusion in self._confusion.items()}

    def tallied(self) -> dict[str, dict[str, Any]]:
        """What else the last test has counted, by task, as `recipes/store/tested.py` keeps it."""
        return {task: tally.compute() for task, tally in self._tallies.items()}

    def _that_count(self, batch: Batch, found: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, int | Tensor]:
        """What a technique measured, one value a sample, and of how many; without its word, one whose labels all losses leave out does not count."""
        values = found if isinstance(found, Tensor) else found[0]
        values, ignored = values.to(widest(values.device)), self.module.task_losses.ignored
        if not isinstance(found, Tensor):
            return values.where(found[1], 0.0), found[1].sum()
        if len(ignored) < len(batch.labels):
            return values, len(values)
        kept = [
            (batch.labels[task][: len(values)] != label).view(len(values), math.prod(batch.labels[task].shape[1:]))
            for task, label in ignored.items()
        ]
        counts = torch.cat(kept, 1).any(1)
        return values.where(counts, 0.0), counts.sum()

    def _positions(self, split: str, index: int, samples: int) -> range:
        """Which samples of the split a batch has: ours say so, others deal them out to the processes one by one."""
        trainer = self.module.trainer
        loader = {"val": trainer.val_dataloaders, "test": trainer.test_dataloaders, "predict": trainer.predict_dataloaders}[
            split
        ]
        if isinstance(loader, EvaluationLoader):
            return loader.positions(index)
        rank, world = trainer.global_rank, trainer.world_size
        first = self._dealt.get(split, 0) if index else 0
        self._dealt[split] = first + samples
        return range(first * world + rank, (first + samples) * world + rank, world)

    def _predictions(self, x: Inputs) -> dict[str, Tensor]:
        """Predicted probabilities as log-probabilities, which every loss and metric takes like logits."""
        module = self.module
        predictions = module.hooks["predict"][0].predict(module, x)
        return {task.name: task.logits(predictions[task.name]) for task in module.setting.tasks}  # type: ignore[union-attr]
