"""What techniques that train on adversarial examples share: crafting beside the training step, robust metrics, a guard."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from plugins.adversarial._ascent import NORMS, Bounds, Loss, fgsm, pgd, random_start
from plugins.base import (
    Batch,
    Module,
    Plugin,
    Refusal,
    Selection,
    Setting,
    Stage,
    derive_seed,
    expect_choice,
    expect_count,
    expect_nonnegative,
    expect_probability,
)
from plugins.sites import evaluation_mode

EVALUATION_STEPS = 10
GUARD_STEPS, GUARD_SAMPLES, GUARD_FALL = 5, 128, 0.2


class Attack(Plugin):
    """Train on the worst case near each sample; a subclass says how it is found.

    Each evaluation attacks the first `eval_samples` samples of its split, always with the full ε: PGD of 10 steps of ε/4
    from a random start (`val/acc_pgd`, `test/acc_pgd`), and FGSM (`test/acc_fgsm`). These choose the best model, since
    robustness overfits before accuracy does. At each validation PGD of 5 steps attacks the last training batch
    (`train_acc_pgd`); a fall by more than 0.2 from its best is catastrophic overfitting, and is warned of.
    """

    stage = Stage.ADVERSARIAL
    off = {"eps": 0.0}

    def __init__(
        self, eps: float, norm: str, clean: float, warmup_steps: int, eval_mode: bool, label: str, eval_samples: int
    ) -> None:
        label = "true" if label is True else label  # what YAML makes of label=true
        expect_nonnegative("eps", eps)
        expect_choice("norm", norm, NORMS)
        expect_probability("clean", clean)
        expect_count("warmup_steps", warmup_steps, least=0)
        expect_choice("eval_mode", eval_mode, [True, False])
        expect_choice("label", label, ["true", "predicted"])
        expect_count("eval_samples", eval_samples, least=0)
        self.eps, self.norm, self.clean, self.warmup_steps = eps, norm, clean, warmup_steps
        self.eval_mode, self.label, self.eval_samples = eval_mode, label, eval_samples
        self._best_robust = 0.0
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None
        self._measured: dict[str, int] = {}

    def perturb(self, x: Tensor, loss: Loss, eps: float, bounds: Bounds, generator: torch.Generator) -> Tensor:
        """Adversarial examples for x within ε."""
        raise NotImplementedError

    # before training
    def check(self, selection: Selection) -> None:
        """Refuse predicted labels where there are none."""
        regressions = [task.name for task in selection.setting.tasks if task.kind == "regression"]
        if self.label == "predicted" and regressions:
            raise Refusal(
                f"{self.state_key} cannot use label=predicted with a regression: at its own prediction the loss has no "
                f"slope; use adversarial.label=true"
            )

    def prepare(self, setting: Setting) -> None:
        """Let robust accuracy choose the best model, where there is one."""
        super().prepare(setting)
        if self.eps > 0 and self.eval_samples > 0 and self._classifications(setting):
            self.monitor = "val/acc_pgd"

    # in each step
    def strength(self, module: Module) -> float:
        """ε of this step: it rises linearly from 0 over the first `warmup_steps` steps."""
        if module.steps_done >= self.warmup_steps:
            return self.eps
        return self.eps * module.steps_done / self.warmup_steps

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Put adversarial examples in place of all samples but the share that is left clean."""
        if self.eps == 0:
            return batch
        first = slice(GUARD_SAMPLES)
        self._last = batch.x[first].clone(), {task: labels[first].clone() for task, labels in batch.labels.items()}
        eps = self.strength(module)
        self.record(module, "eps", eps)
        attacked = len(batch) - round(self.clean * len(batch))
        if eps == 0 or attacked == 0:
            return batch
        generator, x, targets = module.generator(self.option), batch.x, batch.targets
        if attacked == len(batch):
            return replace(batch, x=self.craft(module, x, targets, eps, generator))
        chosen = torch.randperm(len(batch), device=x.device, generator=generator)[:attacked]
        crafted = self.craft(module, x[chosen], {task: target[chosen] for task, target in targets.items()}, eps, generator)
        return replace(batch, x=x.index_copy(0, chosen, crafted))

    def craft(self, module: Module, x: Tensor, targets: Mapping[str, Tensor], eps: float, generator: torch.Generator) -> Tensor:
        """Adversarial examples for a training batch."""
        with crafting(module.model, self.eval_mode, generator):
            if self.label == "predicted":
                targets = {task: output.detach().argmax(1) for task, output in module.outputs(x).items()}
            return self.perturb(x, self._loss(module, targets), eps, self._bounds(module), generator).detach()

    def _loss(self, module: Module, targets: Mapping[str, Tensor]) -> Loss:
        return lambda x: module.objective(module.outputs(x), targets)

    @staticmethod
    def _bounds(module: Module) -> Bounds:
        return (0.0, 1.0) if module.setting.is_image else None

    @staticmethod
    def _classifications(setting: Setting) -> list[str]:
        return [task.name for task in setting.tasks if task.kind == "classification"]

    # evaluation
    def measure(self, module: Module, batch: Batch, outputs: Mapping[str, Tensor], split: str) -> dict[str, Tensor]:
        """Which samples are still classified right under attack, for the first `eval_samples` of the split."""
        done = self._measured.get(split, 0)
        samples = min(len(batch), self.eval_samples - done)
        if samples <= 0 or not self._classifications(module.setting):
            return {}
        self._measured[split] = done + samples
        x, labels = batch.x[:samples], {task: labels[:samples] for task, labels in batch.labels.items()}
        generator = self._evaluation_generator(module, split, done)
        metrics = {"acc_pgd": self._robust(module, x, labels, EVALUATION_STEPS, generator)}
        if split == "test":
            metrics["acc_fgsm"] = self._robust(module, x, labels, 0, generator)
        return metrics

    def _evaluation_generator(self, module: Module, *keys: str | int) -> torch.Generator:
        seed = derive_seed(module.setting.seed, "robust accuracy", *keys, module.trainer.global_rank)
        return torch.Generator(module.device).manual_seed(seed)

    def _robust(
        self, module: Module, x: Tensor, labels: Mapping[str, Tensor], steps: int, generator: torch.Generator
    ) -> Tensor:
        """The share of tasks that each sample, attacked by PGD of `steps` steps (0: by FGSM), is classified right in."""
        with crafting(module.model, True, generator):
            # Copies: a test runs on inference tensors, which know no gradient.
            x, labels = x.clone(), {task: labels.clone() for task, labels in labels.items()}
            loss, bounds = self._loss(module, labels), self._bounds(module)
            if steps:
                start = random_start(x, self.eps, self.norm, generator)
                x = pgd(x, loss, self.eps, self.eps / 4, steps, self.norm, bounds, start)
            else:
                x = fgsm(x, loss, self.eps, self.norm, bounds)
            outputs = module.outputs(x)
            hits = [outputs[task].argmax(1) == labels[task] for task in self._classifications(module.setting)]
        return torch.stack(hits).float().mean(0)

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Start counting, and look for catastrophic overfitting."""
        self._measured["val"] = 0
        if self._last is None or trainer.sanity_checking or not self._classifications(module.setting):
            return
        generator = self._evaluation_generator(module, "train")
        robust = self._robust(module, *self._last, GUARD_STEPS, generator).mean()
        self.record(module, "train_acc_pgd", robust)
        now = float(robust)
        if now < self._best_robust - GUARD_FALL:
            self._warn(self._best_robust, now)
            self._best_robust = now  # one warning for each fall
        self._best_robust = max(self._best_robust, now)

    @rank_zero_only
    def _warn(self, best: float, now: float) -> None:
        warnings.warn(
            f"{self.state_key}: accuracy under PGD on a training batch fell from {best:.2f} to {now:.2f}, catastrophic "
            f"overfitting: use +adversarial=pgd, or lower adversarial.eps (now {self.eps})",
            stacklevel=2,
        )

    def on_test_start(self, trainer: L.Trainer, module: Any) -> None:
        """Start counting."""
        self._measured["test"] = 0

    def state_dict(self) -> dict[str, Any]:
        """The best accuracy under PGD on a training batch so far."""
        return {"best_robust": self._best_robust}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._best_robust = state_dict["best_robust"]


@contextmanager
def crafting(model: nn.Module, eval_mode: bool, generator: torch.Generator) -> Iterator[None]:
    """Gradients on, and whatever passes through the model within leaves no trace: no statistics, no random numbers.

    With `eval_mode` the model is in evaluation mode; without, its layers behave as in training, dropout draws from a
    stream of its own, and buffers such as running statistics are put back.
    """
    # Autocast keeps low-precision copies of the weights: one made without gradients would cut the training pass off.
    torch.clear_autocast_cache()
    mode = evaluation_mode(model) if eval_mode else untouched(model, generator)
    try:
        with torch.inference_mode(False), torch.enable_grad(), mode:
            yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def untouched(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Put buffers and the global random state back afterwards; in between, seed the latter from `generator`."""
    kept = [
        (owner, name, buffer, buffer.clone())
        for owner in model.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    device = generator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        try:
            yield
        finally:
            for owner, name, buffer, value in kept:
                buffer.data.copy_(value)
                setattr(owner, name, buffer)
