"""A second phase behind early stopping, which trains on the validation samples too."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping as OfLightning

from plugins.base import Phase, RecipeError, Refusal, Selection, Setting, called, implementers
from plugins.stopping.early import EarlyStopping


class SecondPhase(EarlyStopping):
    """Early stopping, and one more phase of the same run on training and validation samples, which the subclass asks for by `second`."""

    refuses = {
        "averaging/swa": "it averages from a share of all steps on, and the second phase has others than the first: take averaging=ema"
    }

    def prepare(self, setting: Setting) -> None:
        """Refuse a training that nobody follows by another one."""
        super().prepare(setting)
        if setting.training_inputs is not None and setting.with_weights is None:
            raise RecipeError(
                f"{self.state_key} trains a second time, as train.py does: from Python take EarlyStopping, and train once more"
            )

    def check(self, selection: Selection) -> None:
        """Refuse what asks for a phase too, and what is found on validation samples, which are none any more."""
        super().check(selection)
        if selection.setting.training_inputs is None:  # of a finished run
            return
        for plugin in implementers(selection.plugins, "next_phase"):
            if plugin is not self:
                raise Refusal(
                    f"{self.state_key} and {plugin.state_key} both ask for the next phase of the run: leave one of the two out"
                )
        for option in implementers([*selection.plugins, *selection.others], "calibrate"):
            if option.calibrated_on == "val":
                raise Refusal(
                    f"{self.state_key} cannot be combined with {called(option)}: what is found on the validation split would be "
                    f"found on samples that the second phase has trained on: leave one of the two out"
                )

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuse another callback that would end the second phase by samples that are trained on in it."""
        super().on_train_start(trainer, pl_module)
        if any(isinstance(callback, OfLightning) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise RecipeError(
                f"{self.state_key} cannot be combined with Lightning's EarlyStopping, which would end the second phase by samples "
                f"that it trains on: leave one of the two out"
            )

    def next_phase(self, result: Mapping[str, Any]) -> Phase | None:
        """Ask for the second phase."""
        if self.best_step:
            return self.second()
        warnings.warn(
            f"{self.state_key}: the training has ended before its first evaluation, so there is no second phase: evaluate more "
            f"often, by stopping.every_n_steps",
            stacklevel=1,
        )
        return None

    def second(self) -> Phase | None:
        """The second phase; None: there is nothing left to do."""
        raise NotImplementedError
