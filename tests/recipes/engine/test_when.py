"""An option acts in its share of the training, and elsewhere nothing of it is left."""

from __future__ import annotations

from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.averaging.ema import EMA
from plugins.base import Plugin, RecipeError, Setting, Stage, Task, implementers
from plugins.hooks import HOOKS, STEP
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.l2 import L2Penalty
from plugins.wrapper.sam import SAM
from recipes.data.loaders import StepLoader
from recipes.engine.module import RecipeModule
from recipes.engine.timing import never_acted, open_gates
from tests.harness import fit as harness_fit
from tests.harness import merged_config, options, plugin_class, with_companions
from tests.recipes.engine.test_module import assert_same, fit, samples, train

STEPS = 12
PLAIN = partial(torch.optim.SGD, lr=0.1)  # without a memory


class Watching(Plugin):
    """Defines every hook of a step and counts its calls, by step."""

    stage, option, group = Stage.PENALTY, "watching", "own"

    def __init__(self, when):
        self.when, self.calls = when, {}

    def _count(self, name, module):
        self.calls.setdefault(name, []).append(module.steps_done)

    def transform_batch(self, batch, module):
        self._count("transform_batch", module)
        return batch

    def around_pass(self, module, batch):
        self._count("around_pass", module)
        return torch.enable_grad()

    def transform_model(self, model):
        self.recorded = [model]
        return model

    def records(self, module):
        self._count("records", module)
        return True

    def penalty(self, module, batch, outputs):
        self._count("penalty", module)

    def transform_losses(self, losses, module, batch, outputs):
        self._count("transform_losses", module)
        return losses

    def transform_gradient(self, module, parameters):
        self._count("transform_gradient", module)

    def after_step(self, module, optimizer):
        self._count("after_step", module)

    def combine(self, losses, module):
        self._count("combine", module)
        return sum(losses.values())


@pytest.mark.parametrize(
    ("when", "first", "last"),
    [((0, 1), 0, 11), ((0.25, 0.75), 3, 8), ((0.5, 1), 6, 11), ((0, 0.3), 0, 3), ((0.9, 0.91), None, None)],
)
def test_hooks_of_a_step_are_called_in_that_share_of_the_training(when, first, last):
    watching = Watching(tuple(map(float, when)))
    train(nn.Linear(6, 3), samples(40), watching, steps=STEPS)
    expected = [] if first is None else list(range(first, last + 1))
    for name in ("transform_batch", "around_pass", "records", "penalty", "transform_gradient", "transform_losses", "combine"):
        assert watching.calls.get(name, []) == expected, name
    assert watching.calls.get("after_step", []) == [step + 1 for step in expected]  # the update is done by then


def pair(plugin):
    """The same training without a technique and with it."""
    split, model = samples(40), nn.Linear(6, 3)
    copies = []
    for callbacks in ([], [plugin]):
        copy = nn.Linear(6, 3)
        copy.load_state_dict(model.state_dict())
        copies.append(train(copy, split, *callbacks, steps=STEPS))
    return copies


@pytest.mark.parametrize("plugin", [L2Penalty(weight=0.1), SAM(rho=0.5), EMA(decay=0.9)], ids=lambda plugin: plugin.state_key)
def test_what_never_acts_changes_no_bit_and_what_acts_does(plugin):
    plugin.when = (0.99, 1.0)
    assert_same(*pair(plugin))
    plugin.when = (0.5, 1.0)
    plain, timed = pair(plugin)
    assert any(not torch.equal(value, timed.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize(
    ("when", "until", "told"),
    [
        ((0.5, 1.0), 12, ""),
        ((0.5, 1.0), 7, ""),
        ((0.0, 0.1), 3, ""),
        ((0.5, 1.0), 6, "it never acted: the training ended at step 6, and it begins behind step 6"),
        ((0.9, 0.91), 12, "it never acted: none of 12 steps lies in when=[0.9, 0.91]"),
    ],
)
def test_what_never_acted_is_told(when, until, told):
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *rest):
            trainer.should_stop = trainer.global_step == until

    watching = Watching(when)
    module = train(nn.Linear(6, 3), samples(40), watching, Dropout(p=0.0), L2Penalty(weight=0.1), Stop(), steps=STEPS)
    assert bool(watching.calls) is not bool(told)
    assert never_acted(module) == ({"own/watching": told} if told else {})


def test_a_run_tells_of_what_never_acted(folder, capsys):
    words = ("+regularizer=[l2,l1]", "regularizer.l2.when=[0.9,1]", "+stopping=early", "stopping.patience=1")
    result = folder.train("max_steps=200", "trainer.val_every_n_steps=2", "optimizer.lr=0", *words)
    assert result["stopped_early"] and result["steps"] < 180
    told = f"regularizer/l2: it never acted: the training ended at step {result['steps']}, and it begins behind step 180"
    assert result["events"] == [told]
    assert f"happened {told}\n" in capsys.readouterr().out


def test_a_wrapper_is_as_the_optimizer_alone_before_it_acts():
    """Sharpness-aware from the middle on: the first half as without, the second as a run that begins there."""
    split, start = samples(40), nn.Linear(6, 3)

    def run(state, steps, plugin):
        model = nn.Linear(6, 3)
        model.load_state_dict(state)
        return train(
            model, split, plugin, size=40, steps=steps, optimizer=PLAIN
        )  # whole batches, so that each step is the same problem

    sam = SAM(rho=0.5)
    sam.when = (0.5, 1.0)
    whole = run(start.state_dict(), 8, sam)
    half = train_plain(start.state_dict(), split, 4)
    expected = run(half.model.state_dict(), 4, SAM(rho=0.5))
    plain = train_plain(start.state_dict(), split, 8).model.weight
    torch.testing.assert_close(whole.model.weight, expected.model.weight, rtol=1e-4, atol=1e-6)  # samples come in another order
    assert not torch.allclose(whole.model.weight, plain, rtol=1e-2, atol=1e-4)


def train_plain(state, split, steps):
    model = nn.Linear(6, 3)
    model.load_state_dict(state)
    return train(model, split, size=40, steps=steps, optimizer=PLAIN)


def test_a_share_of_a_training_without_an_end_is_refused():
    module = RecipeModule(nn.Linear(6, 3), functional.cross_entropy, lambda groups: torch.optim.SGD(groups, lr=0.1))
    loader = StepLoader(samples(16), 8, 0)
    plugin = L2Penalty()
    plugin.when = (0.0, 0.5)
    with pytest.raises(RecipeError, match="regularizer/l2: when=.* is a share of the training, which has no end"):
        fit(module, loader, plugin, steps=-1, max_epochs=-1)


def test_all_hooks_of_a_step_were_watched():
    there = {hook.name for hook in HOOKS if hook.moment == STEP}
    apart = {
        "order",
        "picture",
        "aggregate",
        "wrap_optimizer",
    }  # is the loader's, draws once, is of several tasks, is tried with SAM
    assert {name for name in there if implementers([Watching((0, 1))], name)} == there - apart


LOOK = "diagnostics/"  # and change nothing
LAYERS = [
    name for name in options() if (kind := plugin_class(name)) and kind.stage == Stage.LAYERS and not name.startswith(LOOK)
]


def trained(names, folder, *overrides, steps=6, **further):
    config = merged_config(names)
    for place, value in overrides:
        group, option = place.split("/")
        config[group][option] |= value
    return harness_fit(config, folder, steps, **further)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_act_in_that_share_of_the_training(name, tmp_path):
    """Before their time and after it the training is that of the model alone, bit for bit; within it is not."""
    names = with_companions(name)
    plain = trained(names[1:], tmp_path / "plain")
    never = trained(names, tmp_path / "never", (name, {"when": [0.9999, 1.0]}))
    late = trained(names, tmp_path / "late", (name, {"when": [0.5, 1.0]}))
    values = {key.replace(".attached.", "."): value for key, value in never.model.state_dict().items()}
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, values[key]), key
    assert any(not torch.equal(value, late.model.state_dict()[key]) for key, value in plain.model.state_dict().items())


@pytest.mark.parametrize("name", LAYERS)
def test_a_training_that_is_resumed_knows_which_layers_act(name, tmp_path):
    change = (name, {"when": [0.3, 0.7]})
    whole = trained(with_companions(name), tmp_path / "whole", change, copy_at=3)
    resumed = trained(with_companions(name), tmp_path / "resumed", change, resume=tmp_path / "whole" / "copy.ckpt")
    assert_same(whole.model, resumed.model)


def test_a_layer_that_has_stopped_acting_is_not_evaluated_either():
    """Vanilla dropout scales what it lets pass in an evaluation: not once it has stopped."""
    torch.manual_seed(0)
    split, model = samples(40), nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    module = train(model, split, Dropout(0.5, mode="vanilla", when=(0, 0.5)), steps=8)
    x = torch.randn(7, 6)
    hidden = module.model[0](x).relu()
    module.eval()
    torch.testing.assert_close(module.model(x), module.model[2](hidden))
    assert {"acting"} <= {name.rpartition(".")[2] for name in module.model.state_dict()}
    module = train(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), split, Dropout(0.5, mode="vanilla"), steps=2)
    assert not any(name.endswith("acting") for name in module.model.state_dict())  # what always acts needs no gate


def test_gates_do_not_make_a_compiled_model_be_compiled_again():
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    module = RecipeModule(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), functional.cross_entropy, PLAIN)
    module.build([Dropout(0.5, when=(0.4, 0.6))], Setting((6,), (Task("", "classification", 3),)), devices=1)
    compiled = torch.compile(module.model, backend=counter)
    for done in range(10):
        open_gates(module, (done, 10))
        compiled(torch.randn(4, 6))
    assert counter.frame_count == 1
