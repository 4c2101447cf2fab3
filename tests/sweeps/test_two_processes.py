"""Two processes train what one process trains in two parts: for every option, also those that draw at random.

So do two that keep parts of the weights, or the option is refused.
"""

import pytest
import torch

from plugins.base import right_on_shards
from recipes.engine.randomness import Draws
from tests.command import once
from tests.harness import build, config_of, digits, fit, options, parameters, plugin_class, same_bits, weights, with_companions
from tests.ranks import on_ranks
from tests.sweeps.worker import WORDS, train_all

SELECTIONS = {name: ",".join(with_companions(name)) for name in options()}


def two_processes(base, strategy):
    """What two processes found."""

    def make(folder):
        on_ranks(2, train_all, folder / "found.pt", strategy, list(dict.fromkeys(SELECTIONS.values())))

    return torch.load(once(base, f"two_processes_{strategy}", make) / "found.pt", weights_only=True)


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    return two_processes(tmp_path_factory.getbasetemp(), "ddp")


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    return two_processes(tmp_path_factory.getbasetemp(), "fsdp")


@pytest.mark.parametrize("name", options())
def test_equals_one_process_with_two_parts(name, ddp, tmp_path):
    found = ddp[SELECTIONS[name]]
    assert "error" not in found, found["error"]
    if "refused" in found:
        assert len(found["refused"]) > 30
        return
    assert found["ranks_equal"]
    # batches of 16 on two ranks are pieces of 8, like two parts of 8 on one
    two_parts = (*WORDS, "data.batch_size=8", "trainer.accumulate_grad_batches=2")
    one = fit(config_of(SELECTIONS[name].split(","), *two_parts), tmp_path, 4)
    assert one.parts == 2
    assert_close(found["parameters"], parameters(one))
    # the same samples, starts and masks: one of 144 may lie on the border
    assert found["metrics"] == pytest.approx(one.metrics, rel=1e-3, abs=1.5 / 144)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=2e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("name", options())
def test_processes_that_keep_parts_of_the_weights_equal_those_that_keep_copies(name, fsdp, ddp):
    found, expected = fsdp[SELECTIONS[name]], ddp[SELECTIONS[name]]
    assert "error" not in found, found["error"]
    if "refused" in found:
        assert found["refused"].endswith("trainer=ddp")
        selection = build(config_of(SELECTIONS[name].split(","))).selection
        assert not all(map(right_on_shards, [*selection.plugins, *selection.others]))
        return
    assert_close(found["parameters"], expected["parameters"])
    assert found["metrics"].keys() == expected["metrics"].keys() and "val/loss" in found["metrics"]
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-4, abs=1e-5)


def draws(config, folder, expected):
    """Whether what is drawn at random while training and evaluating makes a difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draws, "__init__", lambda self, seed, made=Draws.__init__: made(self, seed + 1))
        other = fit(config, folder, 4)
    return bool(same_bits(weights(other), weights(expected))) or other.metrics != expected.metrics


def couples(module):
    """Whether the model makes something else of samples that come in two halves."""
    x = digits().splits["train"].x[:16].to(next(module.model.parameters()).dtype)
    module.train()
    with torch.no_grad():
        whole, halves = module.outputs(x), [module.outputs(half) for half in x.split(8)]
    return any(
        not torch.allclose(value, torch.cat([half[task] for half in halves]), atol=1e-5) for task, value in whole.items()
    )


@pytest.mark.parametrize("name", options())
def test_accumulation_equals_the_whole_batch(name, tmp_path):
    names = with_companions(name)
    pieces = config_of(names, "data.batch_size=8", "trainer.accumulate_grad_batches=2")
    halves = fit(pieces, tmp_path / "halves", 4)
    if draws(pieces, tmp_path / "drawn", halves):
        pytest.skip("draws at random, for each piece anew")
    if couples(halves):
        pytest.skip("the model couples the samples of a piece, as batch normalization does")
    whole = fit(config_of(names, "data.batch_size=16"), tmp_path / "whole", 4)
    for key, value in parameters(whole).items():
        torch.testing.assert_close(parameters(halves)[key], value, rtol=2e-4, atol=2e-5)
    assert plugin_class(name) is None or halves.metrics.keys() == whole.metrics.keys()
