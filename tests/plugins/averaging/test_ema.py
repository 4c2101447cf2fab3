import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from plugins.averaging.ema import EMA, ema
from plugins.averaging.swa import SWA
from plugins.base import Plugin, RecipeError, Stage
from recipes.engine.module import RecipeModule


class Watch(Plugin):
    """Keeps the weights after each step and feeds them to a reference; keeps what validation sees."""

    stage = Stage.DIAGNOSTICS

    def __init__(self, decay):
        self.decay, self.reference, self.history, self.validated = decay, None, [], []

    def after_step(self, module, optimizer):
        if self.reference is None:
            self.reference = AveragedModel(module.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
        self.reference.update_parameters(module.model)
        self.history.append({name: p.detach().clone() for name, p in module.model.named_parameters()})

    def on_validation_end(self, trainer, pl_module):
        self.validated.append({name: p.detach().clone() for name, p in pl_module.model.named_parameters()})


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 1.0])
def test_is_the_formula(decay):
    history = [[torch.randn(4, 3), torch.randn(2)] for _ in range(6)]
    average = [w.clone() for w in history[0]]
    expected = [w.double() for w in history[0]]
    for weights in history[1:]:
        ema(average, weights, decay)
        expected = [decay * a + (1 - decay) * w.double() for a, w in zip(expected, weights, strict=True)]
    torch.testing.assert_close(average, [e.float() for e in expected])


def test_equals_torch_and_is_what_training_leaves(problem):
    watch = Watch(0.8)
    module = problem.fit(EMA(0.8), watch, steps=13)
    expected = dict(watch.reference.module.named_parameters())
    for name, parameter in module.model.named_parameters():
        torch.testing.assert_close(parameter, expected[name])
    assert any(not torch.equal(value, watch.history[-1][name]) for name, value in module.model.named_parameters())


def test_training_itself_does_not_see_the_average(problem, same):
    with_average, without = Watch(0.8), Watch(0.8)
    problem.fit(EMA(0.8), with_average, steps=20, val_check_interval=3)
    problem.fit(without, steps=20, val_check_interval=3)
    assert all(same(a, b) for a, b in zip(with_average.history, without.history, strict=True))


def test_validation_sees_the_average(problem, same):
    watch = Watch(0.8)
    problem.fit(EMA(0.8), watch, steps=16, val_check_interval=4)
    assert len(watch.validated) == 4
    average = dict(watch.history[0])
    for step, weights in enumerate(watch.history):
        if step:
            average = {name: 0.8 * average[name] + 0.2 * weights[name] for name in weights}
        if step % 4 == 3:
            torch.testing.assert_close(watch.validated[step // 4], average)


def test_weights_come_back_bit_for_bit_also_when_nested(problem, weights, same):
    module, plugin = problem.fit(steps=1), EMA(0.5)
    plugin.after_step(module, None)
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter.add_(torch.randn_like(parameter) / 3)
    plugin.after_step(module, None)
    before = weights(module)
    with plugin.evaluation_weights(module):
        inside = weights(module)
        with plugin.evaluation_weights(module):
            assert same(weights(module), inside)
        assert same(weights(module), inside) and not same(inside, before)
    assert same(weights(module), before)
    with torch.inference_mode(), plugin.evaluation_weights(module):
        assert same(weights(module), inside)
    assert same(weights(module), before)
    with pytest.raises(ZeroDivisionError), plugin.evaluation_weights(module):
        1 / 0  # noqa: B018
    assert same(weights(module), before)


def test_after_training_the_model_stays_what_it_was_left(problem, weights, same):
    plugin = EMA(0.8)
    module = problem.fit(plugin)
    with torch.no_grad():
        module.model[0].weight.zero_()  # such as another technique's last word
    left = weights(module)
    with plugin.evaluation_weights(module):
        assert same(weights(module), left)


def test_goes_on_after_a_checkpoint(problem, weights, same, tmp_path):
    whole = problem.fit(EMA(0.8), steps=16, save=(tmp_path / "last.ckpt", 8))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["averaging/ema"]
    assert saved["count"] == 8
    assert saved["average"].keys() == {name for name, value in whole.model.state_dict().items() if value.is_floating_point()}
    resumed = problem.fit(EMA(0.8), steps=16, resume=tmp_path / "last.ckpt")
    assert same(weights(resumed), weights(whole))


def test_a_second_training_begins_anew(problem, weights, same):
    plugin = EMA(0.8)
    first = weights(problem.fit(plugin))
    assert same(weights(problem.fit(plugin)), first)


def test_running_statistics_are_averaged_like_weights(problem):
    class Statistics(Plugin):
        stage = Stage.DIAGNOSTICS

        def after_step(self, module, optimizer):
            seen.append(module.model[1].running_mean.clone())

    seen = []
    module = problem.fit(EMA(0.5), Statistics(), steps=6)
    average = seen[0]
    for statistics in seen[1:]:
        average = 0.5 * average + 0.5 * statistics
    torch.testing.assert_close(module.model[1].running_mean, average)


def test_the_average_of_another_model_is_an_error(problem):
    module, plugin = problem.fit(steps=1), EMA()
    plugin.load_state_dict({"average": {"other.weight": torch.ones(2)}, "count": 3, "in_place": False})
    with pytest.raises(RecipeError, match="another model; only one has 0.bias.*other.weight"):
        plugin.after_step(module, None)


def test_tied_weights_are_averaged_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    module, plugin = type("Module", (), {"model": model, "steps_done": 0})(), EMA(0.5)
    start = model[0].weight.detach().clone()
    plugin.after_step(module, None)
    with torch.no_grad():
        model[0].weight.add_(1)
    plugin.after_step(module, None)
    with plugin.evaluation_weights(module):
        torch.testing.assert_close(model[1].weight.detach(), start + 0.5)


class Odd(nn.Module):
    """Parameters and buffers of all kinds, which a forward pass replaces, changes in place, adds and reshapes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3))
        self.of = nn.ParameterDict({"short": nn.Parameter(torch.ones(3, dtype=torch.bfloat16))})
        self.turned = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.whole = nn.Parameter(torch.zeros(3, dtype=torch.int32), requires_grad=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros(3, dtype=torch.bool))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("running_size", torch.zeros(3))
        self.register_buffer("running_late", None)

    def forward(self, x):
        output = self.layer(x) * self.turned.abs() + self.of["short"]
        if self.training:
            self.steps = self.steps + 1
            self.seen = self.seen | (output.detach() > 0).any(0)
            self.last = output.detach().mean(0)
            self.running_size = 0.9 * self.running_size + 0.1 * output.detach().square().mean(0)
            if self.steps >= 3:
                self.running_late = torch.full((2 if self.steps < 5 else 4,), float(self.steps))
        return output


class Numbers(Plugin):
    """Keeps all tensors after each step, and what validation sees."""

    stage = Stage.DIAGNOSTICS

    def __init__(self):
        self.history, self.validated = [], []

    def after_step(self, module, optimizer):
        self.history.append({name: value.detach().clone() for name, value in module.model.state_dict().items()})

    def on_validation_end(self, trainer, pl_module):
        self.validated.append({name: value.detach().clone() for name, value in pl_module.model.state_dict().items()})


def fit_odd(model, *plugins, steps=8):
    loader = DataLoader(TensorDataset(torch.randn(64, 6), torch.arange(64) % 3), batch_size=8)
    module = RecipeModule(model, nn.functional.cross_entropy, lambda groups: torch.optim.SGD(groups, 0.3))
    L.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    ).fit(module, loader, loader)  # fmt: skip
    return module


AVERAGED = {"of.short", "turned", "running_size", "layer.bias", "layer.parametrizations.weight.original"}


def test_averages_parameters_and_statistics_of_every_kind_and_nothing_else():
    watch = Numbers()
    module = fit_odd(Odd(), EMA(0.8), watch)
    average = {
        name: watch.history[0][name].to(torch.promote_types(watch.history[0][name].dtype, torch.float32)) for name in AVERAGED
    }
    for step in watch.history[1:]:
        average = {name: 0.8 * average[name] + 0.2 * step[name] for name in AVERAGED}
    late = [step["running_late"] for step in watch.history if len(step.get("running_late", ())) == 4]
    expected = late[0].clone()
    for value in late[1:]:
        expected = 0.8 * expected + 0.2 * value
    for seen in (watch.validated[-1], module.model.state_dict()):
        for name, value in seen.items():
            if name in AVERAGED:
                torch.testing.assert_close(value, average[name].to(value.dtype), msg=name)
            elif name == "running_late":
                torch.testing.assert_close(value, expected)
            else:
                assert torch.equal(value, watch.history[-1][name]), name
    assert any(not torch.equal(watch.history[-1][name], watch.validated[-1][name]) for name in AVERAGED)
    vectors = module.model.layer.parametrizations.weight[0]
    assert float(vectors._u.norm()) == pytest.approx(1) and float(vectors._v.norm()) == pytest.approx(1)


def test_a_slow_average_of_16_bits_moves():
    watch = Numbers()
    model = nn.Sequential(nn.Linear(6, 3).to(torch.bfloat16))
    module = fit_odd(model, EMA(0.999), watch, steps=40)
    average = watch.history[0]["0.weight"].double()
    for step in watch.history[1:]:
        average = 0.999 * average + 0.001 * step["0.weight"].double()
    assert not torch.equal(module.model[0].weight, watch.history[0]["0.weight"])
    torch.testing.assert_close(module.model[0].weight.double(), average, rtol=0.01, atol=1e-3)


def test_a_checkpoint_with_averages_of_other_buffers_goes_on():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)))
    module, plugin = type("Module", (), {"model": model, "steps_done": 1})(), EMA(0.5)
    plugin.load_state_dict({"average": {n: v.clone() for n, v in model.state_dict().items()}, "count": 3, "in_place": False})
    plugin.after_step(module, None)
    assert plugin.state_dict()["average"].keys() == dict(model.named_parameters()).keys()


def test_a_warm_up_forgets_the_first_weights(problem):
    watch, warmup = Watch(0.8), 10.0
    module = problem.fit(EMA(0.8, warmup), watch, steps=60)
    expected = watch.history[0]
    for number, weights in enumerate(watch.history[1:], start=1):
        decay = min(0.8, (1 + number) / (warmup + number))  # TensorFlow's rule, with its number of updates
        expected = {name: decay * value + (1 - decay) * weights[name] for name, value in expected.items()}
    torch.testing.assert_close(dict(module.model.named_parameters()), expected)


@pytest.mark.parametrize("make", [lambda when: EMA(0.9, when=when), lambda when: SWA(0.0, when=when)])
def test_is_forgotten_behind_its_share_of_the_training(problem, weights, same, make):
    """What is evaluated, and left in the model, is not the average of a time that is over."""
    watch, plain = Watch(0.9), Watch(0.9)
    averaged = weights(problem.fit(make((0.0, 0.5)), watch, steps=8))
    assert same(averaged, weights(problem.fit(plain, steps=8)))
    assert same(watch.validated[-1], plain.validated[-1])
