"""Two processes train what one process trains in two parts: for every option, also those that draw at random.

So do two that keep parts of the weights, or the option is refused.
"""

import pytest
import torch

from recipes.check.processes import equals_copies, equals_two_parts, settings, train_all
from tests.command import once
from tests.harness import options
from tests.ranks import on_ranks
from tests.sparsely import sparsely


def two_processes(request, strategy):
    """What two processes found, for the options that this session asks for."""
    names = sorted({item.callspec.params["name"] for item in request.session.items if item.path == request.path})

    def make(folder):
        configs = {name: settings(name, strategy) for name in names}
        on_ranks(2, train_all, folder / "found.pt", configs)

    base = request.getfixturevalue("tmp_path_factory").getbasetemp()
    return torch.load(once(base, f"two_processes_{strategy}", make) / "found.pt", weights_only=True)


@pytest.fixture(scope="module")
def ddp(request):
    return two_processes(request, "ddp")


@pytest.fixture(scope="module")
def fsdp(request):
    return two_processes(request, "fsdp")


@pytest.mark.parametrize("name", sparsely(options()))
def test_equals_one_process_with_two_parts(name, ddp, tmp_path):
    equals_two_parts(name, tmp_path, ddp[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", options())
def test_processes_that_keep_parts_of_the_weights_equal_those_that_keep_copies(name, fsdp, ddp):
    equals_copies(name, fsdp[name], ddp[name])
