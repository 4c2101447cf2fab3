"""On what an option is tried is found out by trying it: with what it needs, on a model that it can change, on data that it means."""

import pytest

from plugins.base import RecipeError
from recipes.check import choice, harness
from recipes.check.selections import Selections, everything, fault_of, refusal_of

PLUGINS = '''
from plugins.base import Plugin, Refusal, Stage


class OfNumbers(Plugin):
    """Means nothing for classes."""

    stage = Stage.DIAGNOSTICS

    def check(self, selection):
        """Refuse them."""
        if any(task.kind == "classification" for task in selection.setting.tasks):
            raise Refusal("regularizer/ofnumbers needs a regression, and the data has classes: leave it out")


class OfChannels(Plugin):
    """Needs a norm layer, the one of another option or the model's own."""

    stage = Stage.DIAGNOSTICS

    def transform_model(self, model):
        """Look for it."""
        if not any("Norm" in type(module).__name__ for module in model.modules()):
            raise Refusal("regularizer/ofchannels finds no norm layer: take normalization=batch, or leave it out")
        return model

    def after_step(self, module, optimizer):
        """Do something."""


class OfNothing(Plugin):
    """Is always refused."""

    stage = Stage.DIAGNOSTICS

    def check(self, selection):
        """Refuse all."""
        raise Refusal("regularizer/ofnothing cannot be used at all: leave it out")
'''


def test_an_option_that_means_nothing_for_classes_is_tried_on_numbers(install, tmp_path):
    install(PLUGINS, "OfNumbers")
    assert harness.works_on("regularizer/ofnumbers") == {"numbers"} and "numbers" in harness.works_on("regularizer/l2")
    assert harness.works_on("regularizer/label_smoothing") == {"classes"}
    selections = Selections(["clipping/norm", "regularizer/label_smoothing", "regularizer/ofnumbers"])
    apart = ("regularizer/label_smoothing", "regularizer/ofnumbers")
    assert selections.apart == [apart] and apart not in selections.pairs
    assert selections.runs and not any(set(apart) <= set(names) for names in selections.runs)
    assert "needs a classification task" in refusal_of(apart)
    assert not any(fault_of(names, tmp_path) for names in selections.runs)


def test_what_an_option_asks_for_comes_along_and_another_of_its_group_will_do(install, tmp_path):
    install(PLUGINS, "OfChannels")
    ((first, *others),) = harness.needs("regularizer/ofchannels")
    assert first == "normalization/batch" and "normalization/model" in others
    selections = Selections(["clipping/norm", "normalization/batch", "regularizer/ofchannels"])
    assert all("normalization/batch" in names for names in selections.runs if "regularizer/ofchannels" in names)
    assert not any(fault_of(names, tmp_path) for names in selections.runs)


def test_an_option_that_is_always_refused_is_told(install):
    install(PLUGINS, "OfNothing")
    with pytest.raises(RecipeError, match="cannot be used at all"):
        Selections(["clipping/norm", "regularizer/ofnothing"])


def test_what_an_option_needs_stands_in_each_of_its_runs():
    selections = everything()
    assert selections.complete(["inference/mc_dropout"]) == ("inference/mc_dropout", "regularizer/dropout")
    assert all("regularizer/dropout" in run for run in selections.runs if "inference/mc_dropout" in run)


@pytest.mark.parametrize("name", choice.options())
def test_options_are_found_again_in_a_config(name):
    found = set(harness.names_in(harness.merged_config([name])))
    target = choice.target(name)
    assert any(choice.target(other) == target for other in found), found
