"""Free adversarial training (Shafahi et al., 2019)."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from plugins.adversarial._ascent import projection, steepest
from plugins.adversarial._attack import Attack
from plugins.base import ALWAYS, Batch, Module, Refusal, Selection, declare, implementers


class FreeAdversarial(Attack):
    """Train on adversarial examples for which the backward pass of the update itself tells how to go on.

    Each batch is trained on `replays` times in a row, at x + δ. One backward pass gives the gradient of the weights and that of δ:
    δ ← Π(δ + ε · sign(∇ₓ J(x + δ))), for l2 along ∇ₓ J / ‖∇ₓ J‖₂, Π the projection onto the ball of radius ε. δ starts as 0 and goes on from
    one batch to the next, place by place; x + δ is clamped to the range of valid inputs. J is all that is minimized, penalties on predictions
    included. One pass an update; a pass over the data takes `replays` epochs, so as many steps as before see so many fewer samples. Of
    several passes, as of wrapper/sam, the first one counts for δ.

    Raises:
        Refusal: label=predicted, eval_mode=true: crafting is the pass that is trained on; a share of the training (when); gradients of tasks that are taken apart; images
            outside of [0, 1] without a range.

    Source: Shafahi et al., "Adversarial Training for Free!", NeurIPS 2019.
    """

    eps: float = declare.number(
        "radius of the ball in the raw range, and length of a step",
        default=0.031373,
        least=0,
        note="8/255 of the pixel range",
        off=0.0,
    )
    replays: int = declare.count("steps in a row on the same batch, and epochs that a pass over the data takes", default=8)
    eval_mode: bool = declare.flag("false: the pass that is trained on crafts, as it is", default=False)

    def __post_init__(self) -> None:
        """Nothing has been perturbed yet."""
        super().__post_init__()
        self.repeats = self.replays if self.trains else 1
        self._deltas: dict[int, Tensor] = {}  # of each part of a step, over all processes
        self._waiting: set[int] = set()  # parts whose gradient is still to come
        self._part = (-1, -1)  # step, and part of it, that is at work

    def check(self, selection: Selection) -> None:
        """Refuse what would need a pass of its own, or leaves no gradient of the inputs."""
        if self.label == "predicted":
            raise Refusal(f"{self.state_key} raises what is minimized, at the true labels: use adversarial.label=true")
        if self.trains and self.when != ALWAYS:
            raise Refusal(
                f"{self.state_key} trains several steps in a row on each batch, from the first to the last: leave adversarial.when out, or "
                f"take +adversarial=pgd"
            )
        if self.eval_mode:
            raise Refusal(
                f"{self.state_key} crafts by the pass that is trained on, in training mode: use adversarial.eval_mode=false"
            )
        apart = implementers(selection.plugins, "aggregate") if len(selection.setting.tasks) > 1 else []
        if apart:
            raise Refusal(
                f"{self.state_key} needs the gradient of all that is minimized, and {apart[0].state_key} takes those of the tasks "
                f"apart: use +multitask=equal"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count steps and parts anew."""
        super().on_train_start(trainer, pl_module)
        self._part = (-1, -1)
        if pl_module.steps_done == 0:
            self._deltas, self._waiting = {}, set()

    def examples(self, batch: Batch, chosen: Tensor | None, module: Module, eps: float, generator: torch.Generator) -> Tensor:
        """x + δ, whose gradient makes the next δ."""
        x, place = batch.x, self._place(module)
        delta = self._deltas.get(place)
        delta = torch.zeros_like(x) if delta is None or delta.shape != x.shape else delta.to(x)
        worst = projection(x, eps, self.norm, self.valid.bounds(module.setting, x))(x + delta)
        if chosen is not None:
            worst = x.index_copy(0, chosen, worst[chosen])
        worst = worst.detach().requires_grad_()
        worst.register_hook(partial(self._rise, place, delta, eps))
        self._waiting.add(place)
        return worst

    @torch.no_grad()
    def _rise(self, place: int, delta: Tensor, eps: float, gradient: Tensor) -> None:
        if place not in self._waiting:
            return
        self._waiting.discard(place)
        step = eps * steepest(gradient.nan_to_num(0.0, 0.0, 0.0), self.norm)  # a scaled gradient may have overflowed
        self._deltas[place] = projection(torch.zeros_like(delta), eps, self.norm, None)(delta + step)

    def _place(self, module: Module) -> int:
        """Which part of the step's batch is transformed: its number, counted as on a single process."""
        step, part = self._part
        self._part = module.steps_done, part + 1 if step == module.steps_done else 0
        rank, processes = _rank()
        return self._part[1] * processes + rank

    def state_dict(self) -> dict[str, Any]:
        """δ of all parts of a step, over all processes, beside what each attack keeps."""
        rank, processes = _rank()
        deltas = {place: delta.cpu() for place, delta in self._deltas.items() if place % processes == rank}
        if processes > 1:
            found: list[Any] = [None] * processes
            dist.all_gather_object(found, deltas)
            deltas = {place: delta for each in found for place, delta in each.items()}
        return {**super().state_dict(), "deltas": deltas}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._deltas = dict(state_dict["deltas"])


def _rank() -> tuple[int, int]:
    """Which process this is, and of how many."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
