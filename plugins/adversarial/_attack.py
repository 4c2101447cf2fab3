"""What techniques that train on adversarial examples share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from plugins.adversarial._ascent import EPS, NORM, Bounds, Loss
from plugins.adversarial._crafting import attacked_loss, crafting
from plugins.adversarial._guard import OverfittingWatched
from plugins.base import (
    Batch,
    Module,
    Refusal,
    Selection,
    Stage,
    declare,
)


class Attack(OverfittingWatched):
    """Train on the worst case near each sample; a subclass says in `perturb` how it is found."""

    stage = Stage.ADVERSARIAL
    measures_when_off = True

    eps: float = EPS
    norm: str = NORM
    clean: float = declare.share("share of each batch that is left clean", default=0.0)
    warmup_steps: int = declare.count("steps over which eps rises from 0", default=0, least=0)
    eval_mode: bool = declare.flag("batch norm and dropout in evaluation mode while crafting", default=True)
    label: str = declare.choice(
        "true",
        "predicted",
        default="true",
        help="predicted | true: the label whose loss is raised",
        convert=lambda label: "true" if label is True else label,  # what YAML makes of label=true
        more="`predicted` avoids label leaking.",
    )

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """Adversarial examples for x within ε."""
        raise NotImplementedError

    def check(self, selection: Selection) -> None:
        """Refuse predicted labels where there are none."""
        if self.label == "predicted" and any(task.kind == "regression" for task in selection.setting.tasks):
            raise Refusal(
                f"{self.state_key} cannot use label=predicted with a regression: at its own prediction the loss has no "
                f"slope; use adversarial.label=true"
            )

    def strength(self, module: Module) -> float:
        """ε of this step: it rises linearly from 0 over the first `warmup_steps` steps."""
        if module.steps_done >= self.warmup_steps:
            return self.eps
        return self.eps * module.steps_done / self.warmup_steps

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Put adversarial examples in place of all samples but the share that is left clean."""
        if not self.trains:
            return batch
        self.remember(module.clean_batch or batch)
        eps = self.strength(module)
        self.record(module, "eps", eps)
        attacked = len(batch) - round(self.clean * len(batch))
        if eps == 0 or attacked == 0:
            return batch
        generator, x = module.generator(self.option), batch.x
        self.valid.expect_within(module.setting, x, "train")
        chosen = None
        if attacked < len(batch):
            chosen = torch.randperm(len(batch), device=x.device, generator=generator)[:attacked]
        return replace(batch, x=self.examples(batch, chosen, module, eps, generator))

    def examples(self, batch: Batch, chosen: Tensor | None, module: Module, eps: float, generator: torch.Generator) -> Tensor:
        """The inputs of a training batch, with adversarial examples in place of the chosen samples, by number (None: all)."""
        if chosen is None:
            return self.craft(module, batch, eps, generator)
        return batch.x.index_copy(0, chosen, self.craft(module, batch.take(chosen), eps, generator))

    def craft(self, module: Module, batch: Batch, eps: float, generator: torch.Generator) -> Tensor:
        """Adversarial examples for the samples of a batch."""
        x, targets = batch.x, batch.targets
        weight = {task: counted for task in targets if (counted := batch.counted(task)) is not None}
        with crafting(module.model, self.eval_mode, generator):
            loss = self.raised(module, x, targets, weight)
            return self.perturb(x, loss, eps, self.valid.bounds(module.setting, x), generator).detach()

    def raised(self, module: Module, x: Tensor, targets: Mapping[str, Tensor], weight: Mapping[str, Tensor]) -> Loss:
        """What is raised, as a function of the inputs: the objective of all tasks at the true labels, or at those that are predicted.

        Samples count in it as in what is minimized: a label that nobody knows for nothing.
        """
        if self.label == "predicted":
            outputs = module.outputs(x)
            targets = {task.name: task.decided(outputs[task.name].detach()) for task in module.setting.tasks}
        return attacked_loss(module, targets, weight)
