"""Early stopping, then training anew on all data for as many steps (Goodfellow, Bengio & Courville, Algorithm 7.2)."""

from __future__ import annotations

from plugins.base import Phase
from plugins.stopping._second_phase import SecondPhase


class EarlyRetrain(SecondPhase):
    """Find by early stopping how long to train, then train anew on all data for as many steps.

    Algorithm 7.2: Algorithm 7.1 on the training samples, judged by the validation samples, returns `i*`. Then θ is set to initial
    values again and trained for `i*` steps on both. All is made anew for that: optimizer, schedule, which stretches over `i*` steps,
    and what techniques have learned of the data, from both. Initial weights are drawn as at first, and batches from the same
    seed, so that what differs are the samples. Nothing chooses in the second phase: the model is that after its last step, and
    its val/… are of samples that were trained on.

    Raises:
        RecipeError: no validation data; no metric of that name, or none of a known direction; a module that no run trains.
        Refusal: a technique that asks for a phase too, or finds something on the validation split; averaging=swa.

    Source: Goodfellow, Bengio & Courville, "Deep Learning", section 7.8, Algorithm 7.2; lecture A.
    """

    def second(self) -> Phase:
        """Train anew."""
        return Phase("retrain", max_steps=self.best_step, fresh=True, all_data=True)
