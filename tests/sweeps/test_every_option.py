"""What holds for every option, over all found in conf/: a new one is tested by existing. The checks are those of `recipes check`."""

import pytest

from plugins.base import implementers
from recipes.check import alone, batches, parameters, predictions
from recipes.check.outcome import NotAsked
from tests.harness import options, plugin_class
from tests.sparsely import sparsely

PLUGINS = [name for name in options() if plugin_class(name) is not None]
CHANGE_BATCHES = [name for name in options() if batches.changes_batches(name)]
PREDICT = [name for name in PLUGINS if implementers([plugin_class(name)], "predict")]
AUGMENTATIONS = [name for name in CHANGE_BATCHES if name.startswith("augmentation/")]


def over(names):
    return pytest.mark.parametrize("name", names)


def ask(check, name, folder):
    """Make a check; what it does not ask of an option is skipped."""
    try:
        check(name, folder)
    except NotAsked as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@over(options())
def test_trains_and_resumes_bit_for_bit_and_in_any_order(name, tmp_path):
    alone.resume_and_order(name, tmp_path, 20)


@over(options())
def test_leaves_the_initial_weights_alone(name, tmp_path):
    ask(alone.initial_weights, name, tmp_path)


@over(options())
def test_has_a_line_for_help_and_a_comment_for_each_parameter(name, tmp_path):
    parameters.file(name, tmp_path)


@over(sparsely(options()))
def test_accumulation_equals_the_whole_batch(name, tmp_path):
    ask(alone.accumulation, name, tmp_path)


@over(PLUGINS)
def test_no_hook_draws_for_others_or_writes_into_its_batch(name, tmp_path):
    ask(batches.draws_and_inputs, name, tmp_path)


@over(CHANGE_BATCHES)
def test_the_batch_that_came_in_stays_as_it_is(name, tmp_path):
    batches.batch_kept(name, tmp_path)


@over(CHANGE_BATCHES)
def test_draws_come_from_the_module_and_are_of_each_sample(name, tmp_path):
    batches.own_draws(name, tmp_path)


@over(CHANGE_BATCHES)
def test_pictures_can_be_drawn(name, tmp_path):
    batches.pictures(name, tmp_path)


@over(AUGMENTATIONS)
def test_other_data_than_images_are_refused_by_what_needs_them(name, tmp_path):
    batches.other_data(name, tmp_path)


@pytest.mark.slow
@over(PREDICT)
def test_predicts_probabilities(name, tmp_path):
    predictions.probable(name, tmp_path)
