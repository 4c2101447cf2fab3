"""Temperature scaling (Guo et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from plugins.base import Batch, Module, Plugin, RecipeError, Refusal, Selection, Stage, Task
from plugins.inference._probabilities import probabilities
from plugins.inputs import Inputs, some

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LARGEST = 100.0  # temperature; the smallest is its inverse
HALVINGS = 40  # of the interval between them: exact to 10 digits
PLACES = 2**12  # of a class map that are looked at, at most


def best_temperature(
    logits: Float[Tensor, "samples classes"], labels: Int[Tensor, " samples"], largest: float = LARGEST
) -> Float[Tensor, ""]:
    """The T in [1/largest, largest] with the smallest −1/n Σ ln softmax(z/T)_y; 1 where there are no finite logits.

    The loss is convex in β = 1/T: its slope, 1/n Σ (E_p[z] − z_y) with p = softmax(βz), crosses 0 once, and is found by bisection.
    """
    z = logits.to(torch.float32 if logits.device.type == "mps" else torch.float64)
    right = z.gather(1, labels.long().unsqueeze(1)).squeeze(1)
    low = z.new_tensor(1 / largest).log()
    high = -low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_cold = ((z * middle.exp()).softmax(1).mul(z).sum(1) - right).mean() > 0  # β is too large
        low, high = middle.where(~too_cold, low), middle.where(too_cold, high)
    known = z.isfinite().all() & torch.tensor(len(z) > 0, device=z.device)
    return (-(low + high) / 2).exp().where(known, 1.0)


class Temperature(Plugin):
    """Divide the logits by a temperature that makes the probabilities fit, found on the validation split.

    p(y | x) = softmax(f(x) / T) with T = argmin −1/n Σ ln softmax(f(x) / T)_y over the validation split, in [0.01, 100], one T
    for each task that is a classification. It is found with the weights that are evaluated, before each validation, and kept
    in the checkpoint beside them. No prediction changes its class. Costs a second pass over the validation split, and memory for its logits;
    of class maps those of at most 4,096 places a sample, spread over all of it and the same in each.

    Raises:
        RecipeError: no validation data; a checkpoint of a training without it.
        Refusal: no task is a classification.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    stage = Stage.INFERENCE
    on_named_inputs = True
    on_class_maps = True
    on_shards = True  # an evaluation puts the model together
    calibrated_on = "val"

    def check(self, selection: Selection) -> None:
        """Refuse a run without probabilities."""
        if not classifications(selection.setting.tasks):
            raise Refusal("inference/temperature scales logits of classes, and there are none to predict: leave it out")

    def calibrate(self, module: Module, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Find T on the samples of all processes, each of which finds the same."""
        tasks = classifications(module.setting.tasks)
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {task.name: [] for task in tasks}
        for batch in batches:
            outputs = module.outputs(batch.x)
            for task in tasks:
                seen[task.name].append(_known(task, outputs[task.name], batch.labels[task.name]))
        together = {task.name: [_gathered(torch.cat(part)) for part in zip(*seen[task.name], strict=True)] for task in tasks}
        found = [best_temperature(logits, labels) for logits, labels in together.values()]
        return {"T": torch.stack(found).float()}

    def predict(self, module: Module, x: Inputs) -> dict[str, Tensor]:
        """Probabilities at the temperature of each task."""
        found = module.calibrated.of(self.state_key)
        if not found:
            raise RecipeError(
                f"{self.state_key} finds its temperature on the validation split while a model is trained, and this one was trained "
                f"without: train with +inference=temperature"
            )
        outputs = module.outputs(x)
        for task, T in zip(classifications(module.setting.tasks), found["T"].to(some(x).device), strict=True):
            outputs[task.name] = outputs[task.name].float() / T
        return probabilities(outputs, module.setting)

    def after_validation(self, module: Module, metrics: Mapping[str, float]) -> dict[str, float]:
        """Log T: above 1 the model is too sure, below 1 not sure enough."""
        tasks = classifications(module.setting.tasks)
        values = module.calibrated.of(self.state_key)["T"].tolist()
        return {f"{self.option}/{task.name or 'T'}": value for task, value in zip(tasks, values, strict=True)}


def classifications(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that have logits."""
    return [task for task in tasks if task.kind == "classification"]


def _known(task: Task, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (samples, classes) and labels (samples,), without what is labelled as none of the classes, or is left out by the loss."""
    if (places := labels[:1].numel()) > PLACES:
        seen = torch.randperm(places, generator=torch.Generator().manual_seed(0))[:PLACES].to(labels.device)
        logits, labels = logits.flatten(2)[:, :, seen], labels.flatten(1)[:, seen]
    known = task.known(labels)
    return logits.float().movedim(1, -1)[known], labels[known]


def _gathered(own: Tensor) -> Tensor:
    """The rows of all processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.cat(gather_all_tensors(own))
    return own
