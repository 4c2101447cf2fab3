"""What holds for all diagnostics: they change no bit, and tell of all parts of a step, and of all processes, together."""

from functools import partial

import pytest
import torch

from plugins.averaging.ema import EMA
from plugins.diagnostics.activation_stats import ActivationStats
from plugins.diagnostics.calibration import Calibration
from plugins.diagnostics.curvature import Curvature
from plugins.diagnostics.gradient_noise import GradientStandardError
from plugins.diagnostics.lr import LearningRates
from plugins.diagnostics.sparsity import Sparsity
from plugins.diagnostics.throughput import Throughput
from plugins.diagnostics.weight_norm import WeightNorm
from plugins.regularizer.dropout import Dropout
from plugins.wrapper.sam import SAM
from recipes.check.harness import fit, merged_config
from tests.ranks import on_ranks

LOOKING = (ActivationStats, Curvature, GradientStandardError, LearningRates, Sparsity, Throughput, WeightNorm)


def all_of_them():
    return [*(kind(every_n_steps=2) for kind in LOOKING), Calibration()]


@pytest.mark.parametrize("others", [[], [SAM, EMA], [partial(Dropout, 0.3)]])
def test_no_bit_of_training_changes(problem, weights, same, others):
    plain = problem.fit(*(other() for other in others), steps=7)
    looked_at = problem.fit(*all_of_them(), *(other() for other in others), steps=7)
    assert same(weights(looked_at), weights(plain))
    state = plain.optimizers().state_dict()["state"], looked_at.optimizers().state_dict()["state"]
    assert all(torch.equal(state[0][at]["momentum_buffer"], state[1][at]["momentum_buffer"]) for at in state[0])


def test_gradients_that_others_see_stay_as_they_are(problem):
    seen = []

    class Watch(WeightNorm):
        def after_step(self, module, optimizer):
            seen.append([parameter.grad.clone() for parameter in module.model.parameters()])

    problem.fit(Watch(), *all_of_them()[:3])
    problem.fit(Watch())
    assert len(seen) == 16
    assert all(
        torch.equal(a, b) for one, other in zip(seen[:8], seen[8:], strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", [ActivationStats, GradientStandardError, Curvature])
def test_what_a_wrapper_asks_for_beside_is_not_looked_at(problem, kind):
    """Both passes of sam see one batch, the second at other weights: what is told is of the first."""
    problem.fit(kind(every_n_steps=1), steps=1)
    plain = next(row for row in problem.log.rows if any(name.startswith(kind().option) for name in row))
    problem.fit(kind(every_n_steps=1), SAM(), steps=1)
    other = next(row for row in problem.log.rows if any(name.startswith(kind().option) for name in row))
    told = {name: value for name, value in plain.items() if name.startswith(kind().option)}
    assert told and {name: other[name] for name in told} == pytest.approx(told, nan_ok=True)


NAMES = tuple(
    f"diagnostics/{name}" for name in ("activation_stats", "curvature", "gradient_noise", "lr", "sparsity", "weight_norm")
)


def recorded(names, settings, folder):
    """What diagnostics have recorded in three steps."""
    found = {}

    def prepare(module):
        for plugin in module.plugins:
            if plugin.group == "diagnostics":
                plugin.every_n_steps = 1
                plugin.record = partial(note, plugin)

    def note(plugin, module, name, value, at_once=False):
        found[f"{plugin.option}/{name}"] = float(value)

    fit(merged_config(names, settings), folder, 3, prepare=prepare)
    return found


def test_two_processes_tell_what_one_tells_of_two_parts(tmp_path):
    one = recorded(NAMES, {"data.batch_size": 8, "trainer.accumulate_grad_batches": 2}, tmp_path / "one")
    first, second = on_ranks(2, recorded, NAMES, {"trainer.strategy": "ddp"}, tmp_path / "two")
    assert {name.partition("/")[0] for name in one} == {name.partition("/")[2] for name in NAMES}
    assert first == pytest.approx(one, rel=2e-3, abs=2e-4, nan_ok=True) and second == pytest.approx(first, nan_ok=True)


@pytest.mark.slow
def test_processes_that_keep_parts_of_the_weights_tell_the_same(tmp_path):
    names = [name for name in NAMES if not name.endswith(("curvature", "gradient_noise"))]
    copies, _ = on_ranks(2, recorded, names, {"trainer.strategy": "ddp"}, tmp_path / "ddp")
    parts, other = on_ranks(2, recorded, names, {"trainer.strategy": "fsdp"}, tmp_path / "fsdp")
    assert parts == pytest.approx(copies, rel=1e-4, abs=1e-5) and other == pytest.approx(parts)
