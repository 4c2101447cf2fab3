"""What every technique that changes a batch does, over all options found in conf/: draws, inputs, pictures, refusals."""

import copy

import pytest
import torch

from plugins.augmentation._images import ImageAugmentation
from plugins.base import Batch, Refusal, Setting, Task, implementers
from tests.harness import build, config_of, digits, is_many, merged_config, options, plugin_class

CHANGE_BATCHES = [name for name in options() if (kind := plugin_class(name)) and implementers([kind], "transform_batch")]
OF_IMAGES = [name for name in CHANGE_BATCHES if name.startswith("augmentation/")]
SAMPLES = 48
each = pytest.mark.parametrize("name", CHANGE_BATCHES)


def plugin_of(name, **parameters):
    """The option's plugin, in a module that is built for the digits."""
    config = merged_config([name])
    group, option = name.split("/")
    (config[group][option] if is_many(group) else config[group]).update(parameters)
    module = build(config)
    return next(plugin for plugin in module.plugins if plugin.state_key == name), module


def batch_of(x, labels):
    return Batch(x, {"": labels}, {"": labels})


def changed(name, batch, part=0):
    plugin, module = plugin_of(name)
    module.draws.clock = (0, part)
    return plugin.transform_batch(batch, module)


@each
def test_the_batch_that_came_in_stays_as_it_is(name):
    split = digits().splits["train"]
    given = batch_of(split.x[:SAMPLES].clone(), split.targets[""][:SAMPLES].clone())
    kept = copy.deepcopy(given)
    after = changed(name, given)
    assert torch.equal(given.x, kept.x) and torch.equal(given.targets[""], kept.targets[""])
    assert torch.equal(after.labels[""], kept.labels[""]), "the true labels travel beside"
    assert (
        not torch.equal(after.x, kept.x)
        or not torch.equal(after.targets[""], kept.targets[""])
        or after.weight != kept.weight
        or after.extra != kept.extra
    ), "something is changed"
    assert len(after) == SAMPLES and after.x.dtype == kept.x.dtype


@each
def test_draws_come_from_the_module_and_are_of_each_sample(name):
    """Of equal images each gets what it alone has drawn; the global random numbers are not touched."""
    x = digits().splits["train"].x[:1].expand(SAMPLES, -1, -1, -1).clone()
    labels, state = torch.arange(SAMPLES) % 2, torch.get_rng_state()
    first, second, other = (changed(name, batch_of(x, labels), part) for part in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.x, second.x) and torch.equal(first.targets[""], second.targets[""])
    if torch.equal(first.x, other.x) and torch.equal(first.targets[""], other.targets[""]):
        return  # nothing is drawn
    target = first.targets[""]
    mixed = target.is_floating_point()
    rows = torch.cat([first.x.flatten(1), target.sort(1)[0]], 1) if mixed else first.x.flatten(1)
    assert len(torch.unique(rows, dim=0)) > (3 if mixed else 1), "all samples of a batch share one draw"


@each
def test_pictures_can_be_drawn(name):
    split = digits().splits["train"]
    plugin, module = plugin_of(name)
    before = split.x[:8].clone()
    after = plugin.transform_batch(batch_of(before, split.targets[""][:8].clone()), module).x
    if torch.equal(before, after):
        return  # targets alone are changed
    rows = plugin.picture(before, after)
    assert rows
    for row in rows:
        assert row.ndim == 4 and row.shape[1] in (1, 3) and row.min() >= 0 and row.max() <= 1


@pytest.mark.parametrize("name", OF_IMAGES)
def test_other_data_than_images_are_refused_by_what_needs_them(name):
    kind = plugin_class(name)
    module = build(config_of([]), [])
    module.model = torch.nn.Linear(7, 3)
    arguments = ([kind()], Setting((7,), (Task("", "classification", 3),)))
    if issubclass(kind, ImageAugmentation):
        with pytest.raises(Refusal, match=f"^{name} needs images .*leave .* out$"):
            module.build(*arguments, devices=1)
        return
    module.build(*arguments, devices=1)
    x = torch.randn(6, 7)
    assert module.plugins[0].transform_batch(batch_of(x, torch.randint(3, (6,))), module).x.shape == x.shape
