"""Multi-task learning with equal weights (Caruana, 1997)."""

from __future__ import annotations

from plugins.multitask._weighted import Weighted


class EqualWeights(Weighted):
    """Learn several targets at once, all with the same weight.

    J = Σ_task J_task, on a trunk that all tasks share and one linear head for each: the trunk gets the sum of the
    gradients, each head that of its own task. The first task keeps the model's output layer, so one task alone equals
    the plain run bit for bit.

    Raises:
        RecipeError: the model does not end with a linear layer of the first task's outputs.

    Source: Caruana, "Multitask Learning", Machine Learning 1997; lecture A.
    """

    on_shards = True
