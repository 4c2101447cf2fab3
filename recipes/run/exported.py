"""A trained run as one function of its inputs, and what a reader of its file has to know beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.base import Task
from plugins.inputs import Inputs
from recipes.engine.module import RecipeModule

INPUT = "x"  # the name of inputs that have none
SAMPLES = "samples"  # the dimension of any size
BYTES = 255.0  # by which images of bytes are divided


class Exported(nn.Module):
    """What a run predicts: y = predict(x), preprocessing, units of the targets and the way of inference included.

    Inputs are those of the model, floats or tokens, (samples, *shape), one after the other in the order of their names. Outputs are a dict,
    by :func:`output_name`: of classes and labels probabilities (samples, classes or labels, *places), else numbers (samples, outputs).

    Args:
        module: of the run, in evaluation mode with the weights that are evaluated.
        names: of the inputs; None: there is one tensor.
    """

    def __init__(self, module: RecipeModule, names: tuple[str, ...] | None) -> None:
        super().__init__()
        self.model, self.calibrated, self.names = module.model, module.calibrated, names
        self.output_names = {task.name: output_name(task) for task in tasks_of(module)}
        self.predict = module.evaluation.predicted

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The predictions."""
        x: Inputs = inputs[0] if self.names is None else dict(zip(self.names, inputs, strict=True))
        return {self.output_names[task]: found for task, found in self.predict(x).items()}


def tasks_of(module: RecipeModule) -> tuple[Task, ...]:
    """The targets of a module that is built."""
    assert module.setting is not None
    return module.setting.tasks


def output_name(task: Task) -> str:
    """What a target is called among the outputs: as in the file that `predict.py` writes."""
    return f"probability_{task.name or 'y'}" if task.kind != "regression" else task.name or "y"


def by_name(x: Inputs) -> dict[str, Tensor]:
    """Inputs by name, also where they are one tensor."""
    return {INPUT: x} if isinstance(x, Tensor) else x


def told(value: Tensor) -> dict[str, Any]:
    """Type and shape of an input or output, as plain values."""
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": [SAMPLES, *value.shape[1:]]}


def facts(
    raw: Inputs, x: Inputs, outputs: Mapping[str, Tensor], module: RecipeModule, further: Mapping[str, Any]
) -> dict[str, str]:
    """What a reader of the file has to know, each as a text in JSON.

    `inputs` and `outputs` have the type and the shape of each by name; an input of images has `divided_by`, 255 where the data has bytes and the
    file takes them in [0, 1]. `tasks` are the targets with the names of their classes. `data_state` is what was learned of the training
    rows to encode them, such as the categories of columns: the file takes rows that are encoded.

    Args:
        raw: inputs as the data has them.
        x: the same as the model takes them.
        outputs: the predictions for them, by name.
        module: of the run.
        further: what else there is to say.
    """
    data = by_name(raw)
    inputs = {
        name: told(value) | ({"divided_by": BYTES} if data[name].dtype == torch.uint8 and value.is_floating_point() else {})
        for name, value in by_name(x).items()
    }
    tasks = [task.plain() | {"output": output_name(task)} for task in tasks_of(module)]
    content = {
        "inputs": inputs,
        "outputs": {name: told(value) for name, value in outputs.items()},
        "tasks": tasks,
        "data_state": module.data_state,
        **further,
    }
    return {name: json.dumps(value, default=_plain, ensure_ascii=False) for name, value in content.items()}


def _plain(value: object) -> object:
    """A tensor of what was learned as lists; whatever else is no plain value as its text."""
    return value.tolist() if isinstance(value, Tensor) else str(value)
