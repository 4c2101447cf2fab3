"""Two processes train what one process trains in two parts: for every option, also those that draw at random.

So do two that keep parts of the weights, or the option is refused. Options are tried in selections of about eight in which each stands.
"""

from functools import cache

import pytest
import torch

from plugins.base import Option, right_on_shards
from plugins.norm_statistics import measured_norms
from plugins.sites import NORMS
from recipes.check.choice import target
from recipes.check.covering import gather
from recipes.check.harness import build, merged_config
from recipes.check.processes import equals_copies, equals_two_parts, settings
from recipes.check.selections import everything
from recipes.run.classes import find_class
from tests.command import once
from tests.ranks import on_ranks, train_all
from tests.sparsely import sparsely
from tests.sweeps.selected import told

SHARES = 6


def two_processes(tmp_path_factory, folder, strategy, selections):
    """What two processes found, by the names of a selection; trained once for all tests that ask for this folder."""

    def make(folder):
        on_ranks(2, train_all, folder / "found.pt", {key(names): settings(names, strategy) for names in selections})

    found = once(tmp_path_factory.getbasetemp(), folder, make) / "found.pt"
    return torch.load(found, weights_only=True)


def key(names):
    return ", ".join(names)


@cache
def runs():
    """Selections in which each option stands."""
    return runs_of(everything().names)


def runs_of(options):
    """Selections in which each of some options stands; what has norm layers alone.

    A bias in front of one has no gradient but what is lost in rounding, which an optimizer that divides by its size, beside it, makes a step
    of. Running statistics have seen half as many batches of two processes; those of a whole model that an option needs are too far from
    settled to compare: there they are measured anew, of the same samples.
    """
    selections = everything()
    complete = {name: selections.complete([name]) for name in options}
    models = {name: build(merged_config(names)).model for name, names in complete.items()}
    apart = [
        name for name, model in models.items() if measured_norms(model) or any(isinstance(m, NORMS) for m in model.modules())
    ]
    together = gather(selections.options, [name for name in options if name not in apart])
    whole = [name for name in apart if any(other.startswith("model/") for other in complete[name])]
    anew = {name: ["guard/precise_norm"] for name in whole if measured_norms(models[name])}
    return [*together, *(selections.complete([name, *anew.get(name, ())]) for name in apart)]


def on_shards(name):
    found = find_class(target(name))
    return not issubclass(found, Option) or right_on_shards(found)


@cache
def right_and_wrong_on_shards():
    """Selections of what is right where each process keeps parts of the weights, and what is not, each with what it needs."""
    selections = everything()
    complete = {name: selections.complete([name]) for name in selections.names}
    right = [name for name, names in complete.items() if all(map(on_shards, names))]
    return runs_of(right), [names for name, names in complete.items() if name not in right]


@pytest.fixture(scope="module")
def ddp(request, tmp_path_factory):
    """What two processes find, for the shares that this session asks for."""
    mine = [item for item in request.session.items if "ddp" in getattr(item, "fixturenames", ()) and item.path == request.path]
    asked = sorted({item.callspec.params["share"] for item in mine})
    return two_processes(tmp_path_factory, "ddp", "ddp", [names for share in asked for names in runs()[share::SHARES]])


@pytest.mark.parametrize("share", sparsely(range(SHARES)))
def test_equals_one_process_with_two_parts(share, ddp, tmp_path):
    for number, names in enumerate(runs()[share::SHARES]):
        told(names, equals_two_parts, names, tmp_path / str(number), ddp[key(names)])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """What two processes find that keep parts of the weights."""
    right, wrong = right_and_wrong_on_shards()
    return two_processes(tmp_path_factory, "shards", "fsdp", [*right, *wrong])


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """What two processes find that keep copies of the weights, for the selections of which parts are right."""
    return two_processes(tmp_path_factory, "copies", "ddp", right_and_wrong_on_shards()[0])


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_what_is_wrong_where_processes_keep_parts_of_the_weights_is_refused(share, shards):
    for names in right_and_wrong_on_shards()[1][share::SHARES]:
        assert "refused" in shards[key(names)], names
        told(names, equals_copies, names, shards[key(names)], {})


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_processes_that_keep_parts_of_the_weights_equal_those_that_keep_copies(share, shards, copies):
    for names in right_and_wrong_on_shards()[0][share::SHARES]:
        found, expected = shards[key(names)], copies[key(names)]
        assert "refused" not in found and "parameters" in expected, (names, found, expected)
        told(names, equals_copies, names, found, expected)
