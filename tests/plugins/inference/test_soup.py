import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.inference._measured import score
from plugins.inference.soup import Soup, mean_weights
from recipes.config.catalogue import Catalogue
from recipes.config.changing import ON_EVALUATION, change, read_run
from recipes.engine.module import RecipeModule
from recipes.run.build import build_data, load_run
from recipes.run.evaluate import evaluate

TASK = Task("", "classification", 3)


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def built(model, *plugins, **known):
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build(plugins, Setting((6,), (TASK,), **known), devices=1)
    return module.eval()


class Kitchen:
    """Models near each other, and the samples that they were trained and validated on."""

    def __init__(self, models=4):
        first = net()
        self.data = {split: (torch.randn(90, 6), torch.randint(3, (90,))) for split in ("train", "val")}
        self.models = [copy.deepcopy(first) for _ in range(models)]
        for model in self.models:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.5 * torch.randn_like(parameter))
                model[1].running_mean.normal_()  # each has trained its own

    def batches(self, split):
        x, y = self.data[split]
        return [(x[rows], y[rows]) for rows in torch.arange(90).split(30)]

    def soup(self, **arguments):
        """The soup that is made of all, the last of them being the run that is evaluated."""
        members = {f"m{number}": built(copy.deepcopy(model)) for number, model in enumerate(self.models[:-1])}
        plugin = Soup([*members], **arguments)
        own_samples = lambda split, device: iter(self.batches(split))  # noqa: E731
        known = {"load_run": members.__getitem__, "find_runs": list, "own_samples": own_samples}
        return plugin, built(copy.deepcopy(self.models[-1]), plugin, **known)

    def mixed(self, which):
        """The mean of some of the models, with its statistics as torch measures them, those of one alone as they are; and its validation accuracy."""
        model = copy.deepcopy(self.models[which[0]])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(sum(self.models[number].get_parameter(name) for number in which) / len(which))
        if len(which) > 1:
            update_bn((x for x, _ in self.batches("train")), model)
        x, y = self.data["val"]
        return model, float((model.eval()(x).argmax(1) == y).float().mean())


def expect_same(found, expected):
    for name, value in expected.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found.state_dict()[name], value, msg=name)


def test_the_mean_of_weights():
    weights = [{"w": torch.randn(4, 3), "n": torch.tensor(number)} for number in range(5)]
    for each in weights:  # as of a spectral layer
        each["c"] = torch.randn(3, dtype=torch.complex64)
    found = mean_weights(weights)
    torch.testing.assert_close(found["c"], torch.stack([each["c"] for each in weights]).mean(0))
    torch.testing.assert_close(found["w"], torch.stack([each["w"] for each in weights]).mean(0))
    assert found["n"] == 0 and found["w"].dtype == torch.float32


def test_all_of_them_with_statistics_measured_anew_and_put_back_bit_for_bit():
    kitchen = Kitchen()
    plugin, module = kitchen.soup()
    before = copy.deepcopy(module.model.state_dict())
    for _ in range(2):
        with plugin.evaluation_weights(module):
            expect_same(module.model, kitchen.mixed(range(4))[0])
        assert all(torch.equal(value, before[name]) for name, value in module.model.state_dict().items())
    assert plugin.remarks == ["the mean of 4 of 4 runs: this run, m0, m1, m2"]


def test_the_greedy_recipe_written_out():
    for _ in range(5):
        kitchen = Kitchen(5)
        names = {0: 1, 1: 2, 2: 3, 3: 4, 4: 0}  # this run comes first
        order = sorted(range(5), key=lambda number: (-kitchen.mixed([number])[1], names[number]))
        chosen, best = order[:1], kitchen.mixed(order[:1])[1]
        for number in order[1:]:
            if (score := kitchen.mixed([*chosen, number])[1]) > best:
                chosen, best = [*chosen, number], score
        plugin, module = kitchen.soup(greedy=True)
        with plugin.evaluation_weights(module):
            expect_same(module.model, kitchen.mixed(chosen)[0])
        assert plugin.remarks[0].startswith(f"the mean of {len(chosen)} of 5 runs: ")


def test_layers_that_have_rested_in_all_runs_keep_their_statistics():
    kitchen = Kitchen()
    for model in kitchen.models:
        model.append(nn.BatchNorm1d(3)).append(nn.BatchNorm1d(3))
        model[4].running_mean.fill_(0.5)
        model[5].running_var.fill_(float(torch.rand(()) + 1))
    plugin, module = kitchen.soup()
    expected, _ = kitchen.mixed(range(4))
    with plugin.evaluation_weights(module):
        found = module.model
        assert torch.equal(found[4].running_mean, torch.full((3,), 0.5)) and torch.equal(found[4].running_var, torch.ones(3))
        torch.testing.assert_close(found[1].running_mean, expected[1].running_mean)
        assert not torch.equal(found[5].running_mean, torch.zeros(3))


def test_a_soup_of_one_run_is_that_run_bit_for_bit():
    (model,), plugin = Kitchen(1).models, Soup("m")
    known = {"load_run": lambda folder: built(copy.deepcopy(model)), "find_runs": lambda places: ["m"], "folder": "m"}
    module = built(model, plugin, **known)
    before = copy.deepcopy(module.model.state_dict())
    with plugin.evaluation_weights(module):
        assert all(torch.equal(value, before[name]) for name, value in module.model.state_dict().items())


def test_labels_that_the_loss_leaves_out_do_not_count():
    model = nn.Linear(6, 3)
    module = RecipeModule(model, nn.CrossEntropyLoss(ignore_index=0), partial(torch.optim.SGD, lr=0.1))
    module.build([], Setting((6,), (TASK,)), devices=1)
    x, y = torch.randn(80, 6), torch.randint(3, (80,))
    right = model(x).argmax(1) == y
    assert score(module, iter([module.as_batch((x, y))])) == pytest.approx(float(right[y > 0].float().mean()))


def test_refuses():
    plugin = Soup("a")
    with pytest.raises(Refusal, match="is made of finished runs: leave it out of the training, then type python evaluate.py"):
        plugin.check(Selection([plugin], Setting((6,), (TASK,), training_inputs=lambda: iter([]))))
    with pytest.raises(Refusal, match=r"has vectors of which a mean says nothing: use \+inference=ensemble"):
        plugin.check(Selection([plugin], Setting((6,), (TASK,)), chosen=frozenset({"regularizer/spectral_norm"})))
    kitchen = Kitchen(2)
    kitchen.models[0] = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    plugin, module = kitchen.soup()
    with (
        pytest.raises(
            RecipeError, match=r"m0 is of another model, only one has 0.bias, 0.weight, .* of its shape: choose"
        ) as error,
        plugin.evaluation_weights(module),
    ):
        pass
    assert "\n" not in str(error.value)
    other = Kitchen(2)
    for model, value in zip(other.models, (0.0, 1.0), strict=True):
        model.register_buffer("mean", torch.full((6,), value))
    plugin, module = other.soup()
    with pytest.raises(RecipeError, match="m0 has another mean, which is no weight"), plugin.evaluation_weights(module):
        pass


def measure(place, *words):
    """`python evaluate.py FOLDER WORDS`."""
    config = change(Catalogue(), read_run(Catalogue(), place), list(words), ON_EVALUATION, "evaluation")
    return evaluate(place, config, words)["metrics"]


def test_finished_runs_that_started_from_one(folders, tmp_path, capsys):
    words = (
        "model=cnn",
        "model.channels=[4]",
        "model.hidden=8",
        "normalization=batch",
        "optimizer=adam",
        "data.train_samples=400",
    )
    folders("first").train("max_steps=20", *words)
    for seed in (0, 1):
        folders(f"study/{seed}").train(
            "max_steps=10", *words, f"seed={seed}", "init=from_run", f"init.folder={tmp_path / 'first'}"
        )
    places = [tmp_path / "study" / name for name in "01"]
    found = measure(places[0], "+inference=soup", f"inference.members={tmp_path}/study")
    assert f"inference/soup: the mean of 2 of 2 runs: this run, {places[1]}\n" in capsys.readouterr().out
    assert found == measure(places[1], "+inference=soup", f"inference.members='{tmp_path}/study/*'")
    modules = [load_run(place) for place in places]
    model = copy.deepcopy(modules[0].model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(sum(module.model.get_parameter(name) for module in modules) / 2)
    data = build_data(read_run(Catalogue(), places[0]))
    data.setup()
    x, y = (data.splits["train"].fetch(torch.arange(len(data.splits["train"])))[0], None)
    update_bn([modules[0].inputs_of(x)], model)
    x, y = data.splits["test"].fetch(torch.arange(len(data.splits["test"])))
    with torch.no_grad():
        outputs = model.eval()(modules[0].inputs_of(x))
    assert found["test/acc"] == pytest.approx(float((outputs.argmax(1) == y[""]).float().mean()))
    assert found["test/loss"] == pytest.approx(float(nn.functional.cross_entropy(outputs, y[""])), rel=1e-4)


def test_runs_that_were_trained_with_an_average(folders, tmp_path):
    words = ("max_steps=6", "model.hidden=[8]", "data.train_samples=200", "+averaging=ema", "averaging.decay=0.5")
    for seed in (0, 1):
        folders(f"study/{seed}").train(*words, f"seed={seed}")
    found = measure(tmp_path / "study" / "0", "+inference=soup", f"inference.members={tmp_path}/study")
    models = [load_run(tmp_path / "study" / name) for name in "01"]
    with torch.no_grad():
        for name, parameter in models[0].model.named_parameters():
            parameter.copy_((parameter + models[1].model.get_parameter(name)) / 2)
    data = build_data(read_run(Catalogue(), tmp_path / "study" / "0"))
    data.setup()
    x, y = data.splits["test"].fetch(torch.arange(len(data.splits["test"])))
    with torch.no_grad():
        outputs = models[0].model.eval()(models[0].inputs_of(x))
    assert found["test/acc"] == pytest.approx(float((outputs.argmax(1) == y[""]).float().mean()))


def test_weights_that_two_layers_share_are_weights():
    kitchen = Kitchen(2)
    for model in kitchen.models:
        model.register_parameter("again", model[0].weight)
    plugin, module = kitchen.soup()
    with plugin.evaluation_weights(module):
        expect_same(module.model, kitchen.mixed([0, 1])[0])
