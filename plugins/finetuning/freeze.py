"""Some layers are trained, the others stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from plugins.base import RecipeError, declare
from plugins.depth import depths, meant_by
from plugins.finetuning._freezing import NEVER, Freezing, by_depth, called, share_of
from plugins.parameters import named_parameters


class Freeze(Freezing):
    """Train some layers only: the others keep their weights, and their norm layers their statistics.

    θ_frozen stays bit for bit: no gradient is computed for it, so neither the optimizer, its momentum nor weight decay move it. Norm
    layers in what is frozen normalize with the statistics they came with, as in an evaluation. Start from weights that are
    worth keeping: `init=from_run`, `model.weights`.

    Raises:
        RecipeError: a name that no layer has; nothing left to train, or nothing to freeze.

    Source: Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014.
    """

    modules: Sequence[str] | None = declare.value(
        "names of layers to freeze, with wildcards",
        "a list of names",
        lambda value: isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(name, str) for name in value),
        default=None,
        null="all but the head, the last layer",
        more='"head" is the last layer, whatever its name.',
    )
    train_norm: bool = declare.flag(
        "norm layers in what is frozen learn on, their parameters and their statistics", default=False
    )

    def keeps_norms(self) -> bool:
        """Unless they learn on."""
        return not self.train_norm

    def starts(self, model: nn.Module) -> Mapping[str, float]:
        """Never, of what is frozen."""
        if self.modules is None:
            blocks = list(by_depth(model, self.state_key).values())
            frozen = {name for block in blocks[1:] for name in block}
        else:
            names, depth = [name for name, _ in model.named_parameters()], depths(model)
            frozen = {name for given in self.modules for name in meant_by(given, model, names, depth, "finetuning.modules")}
        if self.train_norm:
            frozen -= {each.name for each in named_parameters(model) if each.kind == "norm"}
        trained = [name for name, parameter in model.named_parameters() if name not in frozen and parameter.requires_grad]
        if not trained:
            raise RecipeError("finetuning.modules names all that is trained: leave a layer out of it, such as the head")
        layers = dict.fromkeys(called([name]) for name in trained)
        self.remarks = [f"trains {share_of(model, trained)}: {', '.join(layers)}"]
        return {name: NEVER if name in frozen else 0.0 for name, _ in model.named_parameters()}
