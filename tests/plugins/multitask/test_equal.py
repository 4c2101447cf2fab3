import copy
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from plugins.base import RecipeError, Setting, Task
from plugins.multitask._heads import Heads, split_head
from plugins.multitask._weighted import gradient_cosine
from plugins.multitask.equal import EqualWeights
from recipes.engine.module import RecipeModule
from tests.plugins.conftest import Memory

CHARACTERS = Path(__file__).parents[2] / "data" / "omniglot.npz"
TASKS = (Task("alphabet", "classification", 5), Task("drawer", "classification", 20))


class Characters(Dataset):
    """A share of the handwritten characters, with some of their targets."""

    def __init__(self, *targets, samples=96):
        arrays = np.load(CHARACTERS)
        chosen = np.random.default_rng().permutation(len(arrays["x"]))[:samples]
        self.x = torch.from_numpy(arrays["x"][chosen]).unsqueeze(1)
        self.targets = {name: torch.from_numpy(arrays[name][chosen]) for name in targets}

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], {name: target[index] for name, target in self.targets.items()}


def net(outputs=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, outputs))


def fit(model, data, *plugins, tasks=TASKS, compile=False, logger=False):
    optimizer = partial(torch.optim.SGD, lr=0.1)
    module = RecipeModule(model, nn.functional.cross_entropy, optimizer, log_every_n_steps=100, compile=compile)
    module.setting = Setting((1, 28, 28), tuple(tasks))
    loader = DataLoader(data, batch_size=32)
    quiet = {"logger": logger, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L.Trainer(accelerator="cpu", max_steps=3, callbacks=list(plugins), **quiet).fit(module, loader, loader)
    return module


def test_two_targets_train_as_written_out():
    data, model = Characters("alphabet", "drawer"), net()
    module = fit(copy.deepcopy(model), data, EqualWeights())
    trunk, first = copy.deepcopy(model[:3]), copy.deepcopy(model[3])
    second = nn.Linear(16, 20)
    second.load_state_dict(split_head(copy.deepcopy(model), Setting((1, 28, 28), TASKS))[3].heads[1].state_dict())
    parameters = [*trunk.parameters(), *first.parameters(), *second.parameters()]
    for begin in range(0, 96, 32):
        h = trunk(data.x[begin : begin + 32] / 255)
        losses = [
            nn.functional.cross_entropy(head(h), data.targets[name][begin : begin + 32])
            for head, name in ((first, "alphabet"), (second, "drawer"))
        ]
        for parameter, gradient in zip(parameters, torch.autograd.grad(sum(losses), parameters), strict=True):
            parameter.data -= 0.1 * gradient
    for trained, expected in zip(module.model.parameters(), parameters, strict=True):
        torch.testing.assert_close(trained, expected)
    assert {"val/alphabet/acc", "val/drawer/acc", "val/alphabet/loss", "val/drawer/loss"} <= module.metrics.keys()


@pytest.mark.parametrize("name", ["alphabet", "drawer"])
def test_one_task_equals_the_plain_run_bit_for_bit(name):
    task = next(task for task in TASKS if task.name == name)
    data, model = Characters(name), net(task.outputs)
    plain, one = (fit(copy.deepcopy(model), data, *plugins, tasks=[task]) for plugins in ((), (EqualWeights(),)))
    first, second = plain.model.state_dict(), one.model.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_first_task_keeps_its_layer_and_the_global_random_state():
    model = net()
    before, state = copy.deepcopy(model), torch.get_rng_state()
    heads = split_head(model, Setting((1, 28, 28), TASKS, seed=3))[3]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(heads.heads[0].weight, before[3].weight) and torch.equal(heads.heads[0].bias, before[3].bias)
    second = heads.heads[1]
    assert second.weight.shape == (20, 16) and second.weight.requires_grad
    assert second.weight.abs().max() <= 0.25 and second.weight.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.15)
    again, other = (split_head(copy.deepcopy(before), Setting((1, 28, 28), TASKS, seed=s))[3].heads[1] for s in (3, 4))
    assert torch.equal(again.weight, second.weight) and not torch.equal(other.weight, second.weight)


def test_a_head_gets_the_gradient_of_its_own_task_only():
    model = split_head(net(), Setting((1, 28, 28), TASKS))
    out = model(torch.rand(4, 1, 28, 28))
    out["drawer"].square().sum().backward()
    first, second = model[3].heads
    assert first.weight.grad is None and second.weight.grad.abs().sum() > 0 and model[1].weight.grad.abs().sum() > 0


class Residual(nn.Module):
    """Its output layer is deep inside, and not its last child."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"out": nn.Linear(8, 5), "trunk": nn.Linear(784, 8)})

    def forward(self, x):
        return self.body["out"](self.body["trunk"](x.flatten(1)).relu())


def test_finds_the_output_layer_wherever_it_is():
    setting = Setting((1, 28, 28), TASKS)
    model = split_head(Residual(), setting)
    assert isinstance(model.body["out"], Heads)
    assert {name: tuple(out.shape) for name, out in model(torch.rand(2, 1, 28, 28)).items()} == {
        "alphabet": (2, 5),
        "drawer": (2, 20),
    }
    assert isinstance(split_head(nn.Linear(784, 5), Setting((784,), TASKS)), Heads)


def test_refuses_a_model_whose_output_it_cannot_split():
    setting = Setting((1, 28, 28), TASKS)
    with pytest.raises(RecipeError, match="does not end with a linear layer"):
        split_head(nn.Sequential(net(), nn.Tanh()), setting)
    with pytest.raises(RecipeError, match="the model has 7 outputs, expected those of the first task: 5"):
        split_head(net(7), setting)


class TwoOutputs(nn.Module):
    def __init__(self, *names):
        super().__init__()
        self.names, self.heads = names, nn.ModuleList(nn.Linear(784, 20) for _ in names)

    def forward(self, x):
        return {name: head(x.flatten(1)) for name, head in zip(self.names, self.heads, strict=True)}


def test_a_model_with_heads_of_its_own_keeps_them():
    model, setting = TwoOutputs("alphabet", "drawer"), Setting((1, 28, 28), TASKS)
    assert split_head(model, setting) is model
    with pytest.raises(RecipeError, match="TwoOutputs has no outputs for the tasks drawer"):
        split_head(TwoOutputs("alphabet"), setting)


def test_gradient_cosine_written_out():
    model = split_head(net(), Setting((1, 28, 28), (*TASKS, Task("third", "regression", 1))))
    out = model(torch.rand(6, 1, 28, 28))
    losses = {name: value.square().mean() for name, value in out.items()}
    cosine = gradient_cosine(losses, list(model.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())
    shared = [model[1].weight, model[1].bias]
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(x, shared, retain_graph=True)]) for x in losses.values()]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum(rows[i] @ rows[j] / rows[i].norm() / rows[j].norm() for i, j in pairs) / 3
    torch.testing.assert_close(cosine, expected)
    assert gradient_cosine({"one": losses["third"]}, list(model.parameters())) is None
    apart = TwoOutputs("a", "b")
    alone = {name: value.sum() for name, value in apart(torch.rand(2, 784)).items()}
    assert gradient_cosine(alone, list(apart.parameters())) is None


def test_losses_and_cosine_are_recorded_and_the_gradient_stays_clean():
    data = Characters("alphabet", "drawer")
    log = Memory()
    fit(net(), data, EqualWeights(), logger=log)
    recorded = {name: value for row in log.rows for name, value in row.items()}
    assert {"equal/alphabet_loss", "equal/drawer_loss", "equal/gradient_cosine"} <= recorded.keys()
    assert -1 <= recorded["equal/gradient_cosine"] <= 1


def test_a_look_at_the_objective_records_nothing():
    module = RecipeModule(net(), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build([EqualWeights()], Setting((1, 28, 28), TASKS), devices=1)
    outputs = module.outputs(torch.rand(4, 1, 28, 28))
    labels = {task.name: torch.zeros(4, dtype=torch.long) for task in TASKS}
    expected = sum(nn.functional.cross_entropy(outputs[task.name], labels[task.name]) for task in TASKS)
    torch.testing.assert_close(module.objective(outputs, labels), expected)
    assert not module.recorder._records
    module.task_losses.combine(module.losses(outputs, labels))
    assert module.recorder._records.keys() == {"equal/alphabet_loss", "equal/drawer_loss"}


class BackwardBefore(L.Callback):
    """A backward pass that frees its graph comes first, as in a resumed run."""

    def on_train_start(self, trainer, module):
        out = module.model(torch.rand(32, 1, 28, 28))
        torch.autograd.grad(sum(value.sum() for value in out.values()), list(module.model.parameters()))


def test_a_model_that_comes_compiled_keeps_its_graphs():
    import torch._functorch.config as compiler

    with compiler.patch(donated_buffer=True):
        for tasks in (TASKS[:1], TASKS):
            module = RecipeModule(
                torch.compile(net(), backend="eager"), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1)
            )
            module.build([EqualWeights()], Setting((1, 28, 28), tasks), devices=1)
            assert compiler.donated_buffer == (len(tasks) == 1)


@pytest.mark.slow
@pytest.mark.parametrize("itself", [False, True])
def test_trains_compiled(itself):
    """The gradient cosine asks a compiled graph for gradients several times."""
    import torch._functorch.config as compiler
    import torch._inductor.config as inductor

    with compiler.patch(donated_buffer=True), inductor.patch(force_disable_caches=True):
        torch.compiler.reset()
        data, model = Characters("alphabet", "drawer"), net()
        eager = fit(copy.deepcopy(model), data, EqualWeights())
        given = torch.compile(copy.deepcopy(model)) if itself else copy.deepcopy(model)
        compiled = fit(given, data, EqualWeights(), BackwardBefore(), compile=not itself)
    for parameter, expected in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)
