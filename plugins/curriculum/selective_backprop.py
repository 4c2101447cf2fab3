"""Selective backpropagation (Jiang et al., 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plugins.base import Batch, Module, Plugin, Refusal, Selection, Stage, declare
from plugins.counting import widest
from plugins.passes import look
from plugins.sample_losses import losses_of_samples

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def chances(samples: int, keep: float) -> Float[Tensor, " {samples}"]:
    """((r − ½) / n)^(1/keep − 1) of the sample of rank r = 1 … n, the smallest loss first: in proportion to them samples are drawn."""
    return ((torch.arange(samples, dtype=torch.float64) + 0.5) / samples) ** (1 / keep - 1)


def choose(losses: Float[Tensor, " samples"], keep: float, generator: torch.Generator) -> Int[Tensor, " chosen"]:
    """⌊keep · n⌋ different samples, one at least, in their order: each drawn from those that are left in proportion to its chance."""
    ranked = losses.argsort(stable=True)
    count = max(1, int(keep * len(losses) + 1e-9))
    found = chances(len(losses), keep).to(widest(losses.device)).to(losses.device)
    drawn = torch.multinomial(found, count, generator=generator)
    return ranked[drawn].sort().values


class SelectiveBackprop(Plugin):
    """Learn from the samples of a step whose losses are large, and leave the others out of the backward pass.

    A forward pass without gradient tells the loss of each of the n samples of a micro-batch, ⌊keep · n⌋ of which are drawn without
    replacement: the sample of rank r, the smallest loss first, with a chance in proportion to ((r − ½) / n)^(1/keep − 1). The step minimizes the
    mean loss of these, the others are not looked at again: the step costs about 1/3 + keep of its time without. Each `interrupt`-th step takes
    all samples. Every micro-batch, of each process, has its own ranks, so k of them on one process equal one on each of k.
    The pass behaves as in training, with draws of its own, and leaves no trace in running statistics. `train/loss` and `train/acc` count what is
    learned from. With `curriculum.selective_backprop.when=[0.5,0.9]` it acts as its authors advise, once easy samples are known.

    Raises:
        RecipeError: a loss that returns one number for all samples.
        Refusal: several steps in a row that train on the same samples; what draws, or weighs, samples by loss.

    Source: Jiang et al., "Accelerating Deep Learning by Focusing on the Biggest Losers", 2019; MosaicML Composer, "Selective Backprop".
    """

    stage = Stage.SELECTION
    on_named_inputs = True
    on_class_maps = True
    refuses = {
        "sampling/importance": "the losses of samples that it leaves out would not be made up for; leave one of the two out",
        "curriculum/self_paced": "one takes the samples of large loss, the other those of small loss; leave one of the two out",
    }

    keep: float = declare.number("share of each micro-batch that is learned from", default=0.5, above=0, most=1, off=1.0)
    interrupt: int = declare.count("steps of which the last one takes all samples", default=2, least=0, note="0: none does")

    def check(self, selection: Selection) -> None:
        """Refuse steps in a row that must have the same samples."""
        replaying = [plugin.state_key for plugin in selection.plugins if plugin.repeats > 1]
        if replaying:
            raise Refusal(
                f"{self.state_key} chooses samples in each step, and {replaying[0]} trains several steps in a row on the same ones: leave one "
                f"of the two out"
            )

    def transform_batch(self, batch: Batch, module: Module) -> Batch:
        """Take the samples that are learned from."""
        if self.interrupt and (module.progress[0] + 1) % self.interrupt == 0:
            return batch
        with look(module.model, module.generator(f"{self.option}/pass")):
            losses = losses_of_samples(self, module, batch, module.outputs(batch.x))
        chosen = choose(losses, self.keep, module.generator(self.option))
        self.record(module, "loss", losses.mean())
        self.record(module, "chosen_loss", losses[chosen].mean())
        return batch.take(chosen)
