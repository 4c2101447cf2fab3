"""What is recorded of a technique: of the step as it is, of all its parts, at the interval that was asked for, in short runs too."""

import warnings
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import Plugin, RecipeError, Stage
from plugins.clipping.norm import ClipNorm
from plugins.diagnostics.gradient_stats import GradientStats
from plugins.multitask.equal import EqualWeights
from plugins.regularizer.l2 import L2Penalty
from plugins.stopping.early import EarlyStopping
from plugins.wrapper.sam import SAM
from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish
from recipes.engine.module import RecipeModule
from recipes.run.trainer import trainer_arguments
from tests.harness import config_of
from tests.plugins.conftest import Memory

SGD = partial(torch.optim.SGD, lr=0.5)


def net():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def data(samples=20):
    return TensorDataset(torch.randn(samples, 6), torch.randint(3, (samples,)))


class Named(Plugin):
    stage, group, option = Stage.DIAGNOSTICS, "test", "named"


def fit(model, samples, *plugins, size=10, steps=4, validation=False, optimizer=SGD, **further):
    module = RecipeModule(model, nn.functional.cross_entropy, optimizer, **further)
    log = Memory()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(accelerator="cpu", max_steps=steps, callbacks=list(plugins), logger=log, **quiet)
        trainer.fit(module, DataLoader(samples, size), DataLoader(samples, size) if validation else None)
    return log, module


# ------------------------------------------------------------------ of the first pass


def test_a_penalty_is_that_of_the_weights_of_the_step_not_of_the_place_sam_looks_at():
    """Compared with the same quantity read before each step."""
    before = []

    class Look(Named):
        def transform_batch(self, batch, module):
            before.append(sum(float(p.square().sum()) for n, p in module.model.named_parameters() if n.endswith("weight")))
            return batch

    log, _ = fit(net(), data(), SAM(1.0), L2Penalty(0.2), Look(), log_every_n_steps=1)
    assert log.series("l2/penalty") == pytest.approx([0.1 * value for value in before], rel=1e-4)


@pytest.mark.parametrize("hook", ["penalty", "combine", "around_pass"])
def test_what_is_recorded_in_a_pass_is_of_the_first_one(hook):
    calls = []

    class Records(Named):
        def note(self, module):
            calls.append(len(calls))
            self.record(module, "call", float(calls[-1]))
            module.record_histogram("call", torch.tensor([float(calls[-1])]))

        if hook == "penalty":

            def penalty(self, module, batch, outputs):
                self.note(module)

        elif hook == "combine":

            def combine(self, losses, module):
                self.note(module)
                return sum(losses.values())

        else:

            def around_pass(self, module, batch):
                from contextlib import nullcontext

                self.note(module)
                return nullcontext()

    for optimizer, passes in ((SGD, 2), (partial(torch.optim.LBFGS, max_iter=3), None)):
        calls.clear()
        log, _ = fit(net(), data(), Records(), *([SAM(0.1)] if passes else []), optimizer=optimizer, log_every_n_steps=1)
        found = log.series("named/call")
        assert len(found) == 4 and found[0] == 0 and len(calls) > 4
        if passes:
            assert found == [0, 2, 4, 6]
        assert [int(h["call"].low + 0.5) for h in log.histograms] == found


def test_the_losses_of_tasks_are_those_before_sam_moves_the_weights():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.heads = nn.Linear(6, 5), nn.ModuleDict({"a": nn.Linear(5, 3), "b": nn.Linear(5, 2)})

        def forward(self, x):
            return {name: head(self.body(x).tanh()) for name, head in self.heads.items()}

    class Tasks(torch.utils.data.Dataset):
        x, a, b = torch.randn(20, 6), torch.randint(3, (20,)), torch.randint(2, (20,))

        def __len__(self):
            return 20

        def __getitem__(self, index):
            return self.x[index], {"a": self.a[index], "b": self.b[index]}

    plain, _ = fit(TwoHeads(), Tasks(), EqualWeights(), steps=1, optimizer=partial(torch.optim.SGD, lr=0.0))
    model = TwoHeads()
    log, _ = fit(model, Tasks(), EqualWeights(), SAM(2.0), steps=1, optimizer=partial(torch.optim.SGD, lr=0.0))
    outputs = model(Tasks.x[:10])
    for name, labels in (("a", Tasks.a), ("b", Tasks.b)):
        expected = float(nn.functional.cross_entropy(outputs[name], labels[:10]))
        assert log.series(f"equal/{name}_loss") == [pytest.approx(expected, rel=1e-5)]
    assert plain.series("equal/a_loss")


@pytest.mark.parametrize(("size", "parts"), [(10, 2), (9, 2), (10, 4), (7, 3)])
def test_of_parts_the_mean_over_samples_is_recorded(size, parts):
    """The recorded loss is that of the step, as the engine itself counts it."""

    class Records(Named):
        def transform_batch(self, batch, module):
            self.record(module, "first", batch.x.mean())
            return batch

        def penalty(self, module, batch, outputs):
            self.record(module, "loss", module.objective(outputs, batch.targets))

    samples = data()
    log, _ = fit(net(), samples, Records(), SAM(0.1), size=size, parts=parts, steps=2, log_every_n_steps=1)
    assert log.series("named/loss") == pytest.approx(log.series("step/loss"), rel=1e-5)
    expected = [float(samples.tensors[0][at : at + size].mean()) for at in (0, size)]
    assert log.series("named/first") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.bool, torch.int64])
def test_what_is_measured_is_summed_exactly(kind):
    """301 ones: bfloat16 has no such number."""

    class Measures(Named):
        def measure(self, module, batch, outputs, split):
            return {"ones": torch.ones(len(batch)).to(kind)}

    _, module = fit(net(), data(602), Measures(), size=301, steps=2, validation=True)
    assert module.metrics["val/ones"] == 1


# ------------------------------------------------------------------ when


@pytest.mark.parametrize("validation", [False, True])
def test_a_run_shorter_than_the_interval_tells_its_last_step(validation):
    plugins = (SAM(0.1), L2Penalty(0.1), ClipNorm(1.0))
    log, _ = fit(net(), data(), *plugins, steps=5, log_every_n_steps=50, validation=validation)
    for name in ("sam/sharpness", "l2/penalty", "norm/before", "lr"):
        assert len(log.series(name)) == 1, name
        assert [row["at"] for row in log.rows if name in row] == [5]
    every, _ = fit(net(), data(), *plugins, steps=5, log_every_n_steps=1)
    assert len(every.series("l2/penalty")) == 5


def test_the_last_step_is_told_once():
    log, _ = fit(net(), data(), L2Penalty(0.1), steps=6, log_every_n_steps=3)
    assert [row["at"] for row in log.rows if "l2/penalty" in row] == [3, 6]


@pytest.mark.parametrize("interval", [1, 2, 7, 50])
@pytest.mark.parametrize("every", [1, 3, 10])
def test_an_interval_of_its_own_is_kept_whatever_that_of_the_log_is(every, interval):
    log, _ = fit(net(), data(), GradientStats(every), steps=12, log_every_n_steps=interval)
    expected = sorted({1, *range(every, 13, every)})
    assert [row["at"] for row in log.rows if "gradient_stats/norm" in row] == expected
    assert [row["at"] for row in log.histograms if "gradient_stats/0" in row] == expected
    rows = [row["at"] for row in log.rows if "step/loss" in row]
    assert rows == sorted({*range(interval, 13, interval), 12})


def test_what_waits_is_not_told_between_with_what_does_not():
    class Waits(Named):
        def after_step(self, module, optimizer):
            self.record(module, "step", float(module.steps_done))

    log, _ = fit(net(), data(), GradientStats(2), Waits(), steps=9, log_every_n_steps=4)
    assert [row["at"] for row in log.rows if "named/step" in row] == [4, 8, 9]


@pytest.mark.parametrize(
    ("words", "fine"),
    [
        (["+stopping=early", "stopping.every_n_steps=7"], False),
        (["+stopping=early", "stopping.every_n_epochs=2"], False),
        (["+stopping=early", "stopping.every_n_steps=10"], True),
        (["+stopping=early"], True),
        ([], True),
    ],
)
def test_an_interval_of_validations_is_never_dropped(words, fine):
    words = [*words, "trainer.val_every_n_steps=10"]
    config = finish(Catalogue(), compose(words), words)
    node = config.get("stopping")
    plugins = [EarlyStopping(**{name: value for name, value in node.items() if name != "_target_"})] if node else []
    if fine:
        assert trainer_arguments(config["trainer"], plugins)["val_check_interval"] == 10
        return
    with pytest.raises(RecipeError, match=r"trainer.val_every_n_steps=10 and stopping/early .*: leave one") as told:
        trainer_arguments(config["trainer"], plugins)
    assert "\n" not in str(told.value)


def test_two_techniques_that_ask_for_different_things_are_refused():
    class Asks(Named):
        option = "asks"

        def trainer_arguments(self):
            return {"val_check_interval": 3, "check_val_every_n_epoch": None}

    options = config_of([])["trainer"]
    with pytest.raises(RecipeError, match="stopping/early .* and test/asks .* ask for different validations"):
        trainer_arguments(options, [EarlyStopping(every_n_steps=5), Asks()])
    assert trainer_arguments(options, [EarlyStopping(every_n_steps=3), Asks()])["val_check_interval"] == 3
