"""Monte Carlo dropout (Gal & Ghahramani, 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from plugins.activations import named, passage
from plugins.base import Batch, Module, Plugin, RecipeError, Stage, declare, derive_seed
from plugins.inference._dropping import dropping, drops, passes_are_equal
from plugins.inference._probabilities import entropy, probabilities
from plugins.inputs import Inputs, Shape, each, numbers_in, some

MOST, NUMBERS = 128, 2**22  # samples of a split that pass together, and numbers in their inputs, at most


def block_size(shape: Shape) -> int:
    """How many samples of a shape pass together: the same on all devices and in batches of all sizes, as masks are drawn for a block."""
    return max(1, min(MOST, NUMBERS // max(1, numbers_in(shape))))


class MCDropout(Plugin):
    """Predict by the mean of several passes with dropout on.

    p(y | x) = 1/T · Σₜ softmax(f(x; mₜ)) with a fresh dropout mask mₜ in each of T passes; all other layers are in
    evaluation mode. For a regression the mean of the outputs. The predictive entropy −Σ p ln p, in nats, is the metric
    `entropy`: how unsure the model is.

    Raises:
        RecipeError: no dropout in the model that drops anything, or dropout that cannot be switched on.

    Source: Gal & Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016; lecture D.
    """

    stage = Stage.INFERENCE
    on_named_inputs = True
    on_class_maps = True

    samples: int = declare.count("number of passes", default=20)

    def __post_init__(self) -> None:
        """Nothing is known of the model yet."""
        self._frozen: set[int] = set()  # layers that are in evaluation mode in training too

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Leave the model as it is, but refuse one whose passes would all be equal."""
        shape = self.setting.shape if hasattr(self, "setting") else None
        found = passage(model, shape) if shape is not None else None
        if found and found.dropping:
            raise RecipeError(
                f"inference/mc_dropout cannot switch on the dropout that {type(model).__name__} calls by functions ({named(found.dropping)}): "
                f"write it as a module, nn.Dropout"
            )
        layers = [module for module in model.modules() if drops(module) is not None]
        if not layers:
            raise RecipeError(
                f"inference/mc_dropout needs dropout layers and {type(model).__name__} has none: train with +regularizer=dropout, and regularizer.dropout.p above 0"
            )
        at_work = [layer for layer in layers if 0 < (drops(layer) or 0) < 1]
        if not at_work:
            p = drops(layers[0]) or 0
            raise RecipeError(
                f"inference/mc_dropout: all dropout layers of {type(model).__name__} have p={p:g}, so that all passes are equal: set "
                f"regularizer.dropout.p, or the model's own p, between 0 and 1"
            )
        self._frozen = {id(layer) for layer in at_work if not layer.training}
        if len(self._frozen) == len(at_work):
            raise RecipeError(
                f"inference/mc_dropout: all dropout layers of {type(model).__name__} are in evaluation mode, so that it is trained without: "
                f"call its train() first"
            )
        if shape is not None and passes_are_equal(model, shape, self._frozen, derive_seed(self.setting.seed, self.option)):
            raise RecipeError(
                f"inference/mc_dropout: passes through {type(model).__name__} with dropout on are all equal: its dropout layers have no say "
                f"in what it returns; train with +regularizer=dropout, and not from init=zeros"
            )
        return model

    def predict(self, module: Module, x: Inputs) -> dict[str, Tensor]:
        """The mean prediction; a sample's masks depend on its place in the split alone, on however many devices it is evaluated."""
        samples, device = len(some(x)), some(x).device
        positions = module.positions if module.positions is not None and len(module.positions) == samples else range(samples)
        size, by_block = block_size(module.setting.shape), dict[int, list[int]]()
        for row, place in enumerate(positions):
            by_block.setdefault(place // size, []).append(row)
        with dropping(module.model, self._frozen), torch.random.fork_rng([device] if device.type == "cuda" else []):
            if not by_block:  # a process without samples does what the others do
                return self._mean(module, x)
            pieces = [self._of_block(module, x, positions, block, rows) for block, rows in by_block.items()]
        order = torch.tensor([row for rows in by_block.values() for row in rows], device=device).argsort()
        return {task: torch.cat([piece[task] for piece in pieces]).index_select(0, order) for task in pieces[0]}

    def _of_block(self, module: Module, x: Inputs, positions: range, block: int, rows: list[int]) -> dict[str, Tensor]:
        """The predictions for some rows of a block, which passes as a whole: with blanks in the place of samples that are elsewhere."""
        size = block_size(module.setting.shape)
        places = torch.tensor([positions[row] % size for row in rows], device=some(x).device)
        whole = each(x, lambda x: x.new_zeros(size, *x.shape[1:]).index_copy(0, places, x[rows]))
        torch.manual_seed(derive_seed(module.setting.seed, self.option, block))
        return {task: mean.index_select(0, places) for task, mean in self._mean(module, whole).items()}

    def _mean(self, module: Module, x: Inputs) -> dict[str, Tensor]:
        total = probabilities(module.outputs(x), module.setting)
        for _ in range(self.samples - 1):  # one pass is kept at a time
            total = {task: total[task] + p for task, p in probabilities(module.outputs(x), module.setting).items()}
        return {task: values / self.samples for task, values in total.items()}

    directions: ClassVar[Mapping[str, str]] = {"entropy": "min"}

    def measure(
        self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The entropy of the mean prediction, averaged over the known places and the classifications that have some, and which samples do."""
        predicted = probabilities(outputs, module.setting)  # of log-probabilities: the mean prediction again
        found = []
        for task in module.setting.tasks:
            if task.kind == "classification":
                known = task.known(batch.labels[task.name]).unsqueeze(-1).flatten(1)
                values = entropy(predicted[task.name]).unsqueeze(-1).flatten(1).where(known, 0.0)
                found.append((values.sum(1) / known.sum(1).clamp_min(1), known.any(1)))
        if not found:
            return {}
        means, counts = (torch.stack(each) for each in zip(*found, strict=True))
        return {"entropy": (means.sum(0) / counts.sum(0).clamp_min(1), counts.any(0))}
