"""Dropout of the visible units (Srivastava et al., 2014)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from plugins.activations import passage
from plugins.base import Plugin, RecipeError, Refusal, Selection, Stage, declare
from plugins.inputs import masks_in
from plugins.regularizer.dropout import dropout
from plugins.sites import attach, expect_training, innermost


class InputDropoutLayer(nn.modules.dropout._DropoutNd):
    """The layer that :class:`InputDropout` puts in front of a model.

    Args:
        p: probability that a number is dropped.
        kept: names of inputs that stay as they are, such as masks, as whole numbers do.
    """

    def __init__(self, p: float, kept: Collection[str] = ()) -> None:
        super().__init__(p)
        self.kept = tuple(kept)

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Tensor | Mapping[str, Tensor]:
        """Drop in training; of several inputs by name each that is of floats."""
        if not self.training:
            return x
        if isinstance(x, Tensor):
            return dropout(x, self.p)
        return {
            name: dropout(value, self.p) if value.is_floating_point() and name not in self.kept else value
            for name, value in x.items()
        }


class InputDropout(Plugin):
    """Drop inputs at random during training: no prediction may rest on one of them.

    x ← m ⊙ x / (1 − p) with m ~ Bernoulli(1 − p) in training and x at test, number by number. It acts on what the model sees, behind the
    preprocessing, so what is dropped has the mean value of standardized inputs. Of several inputs by name those that are floats are
    dropped, and no masks.

    Raises:
        Refusal: inputs that are whole numbers.
        RecipeError: a module that sees the inputs first and is called elsewhere too.

    Source: Srivastava et al., "Dropout", JMLR 2014; lecture A ("hidden and visible").
    """

    stage = Stage.LAYERS

    p: float = declare.share("probability that an input is dropped", default=0.2, off=0.0)

    def check(self, selection: Selection) -> None:
        """Refuse inputs of which none is a quantity."""
        if not selection.setting.has_quantities:
            raise Refusal(
                f"{self.state_key} drops inputs that are quantities, and these are whole numbers that stand for something: type "
                f"+regularizer=dropout, or leave it out"
            )

    def transform_model(self, model: nn.Module) -> nn.Module:
        """Put the layer in front of the first module."""
        first = innermost(model, 0)
        if first is not model and sum(call.module is first for call in passage(model, self.setting.shape).calls) > 1:
            raise RecipeError(
                f"{self.state_key}: {type(first).__name__}, which sees the inputs first, is called elsewhere too: give the inputs a module "
                f"of their own, such as nn.Identity()"
            )
        expect_training(self.state_key, model, [first])
        kept = masks_in(self.setting.shape, model)
        attach(first, self.option, InputDropoutLayer(self.p, kept), before=True)
        return model
