"""Every pair of techniques trains, or is refused in one line before the first batch; the order they are written in is free."""

import itertools

import pytest
import torch

from plugins.base import RecipeError, does_something
from tests.harness import (
    build,
    config_of,
    fit,
    is_many,
    merged_config,
    options,
    plugin_class,
    same_bits,
    weights,
    with_companions,
)

SHARES = 24


def pairs():
    """All pairs that can be typed: of different groups, or of one group that takes several."""
    acting = [name for name in options() if (found := plugin_class(name)) is None or does_something(object.__new__(found))]
    for first, second in itertools.combinations(acting, 2):
        group = first.split("/")[0]
        if group != second.split("/")[0] or is_many(group):
            yield first, second


@pytest.mark.parametrize("share", range(SHARES))
def test_pairs_train_or_are_refused(share, tmp_path, record_property):
    trained, refused = 0, []
    for number, (first, second) in enumerate(itertools.islice(pairs(), share, None, SHARES)):
        names = list(dict.fromkeys([first, second, *with_companions(first), *with_companions(second)]))
        names = [name for name in names if name in (first, second) or not clashes(name, (first, second))]
        config = merged_config(names)
        if number % 8 == 0:
            assert config == config_of(names)
        try:
            build(config)
        except RecipeError as error:
            message = str(error)
            assert "\n" not in message and len(message) > 30, (first, second, message)
            refused.append(f"{first} with {second}: {message}")
            continue
        module = fit(config, tmp_path / "written", 3)
        assert module.steps_done == 3, (first, second)
        bad = [name for name, value in weights(module).items() if value.is_floating_point() and not torch.isfinite(value).all()]
        assert not bad, (first, second, bad)
        turned = fit(config, tmp_path / "turned", 3, reverse=True)
        assert not same_bits(weights(module), weights(turned)), (first, second)
        trained += 1
    record_property("pairs", {"trained": trained, "refused": refused})  # summed up at the end of the session
    assert trained


def clashes(name, chosen):
    """Whether a companion would be a second option of a group that takes one."""
    group = name.split("/")[0]
    return not is_many(group) and any(other.split("/")[0] == group for other in chosen)
