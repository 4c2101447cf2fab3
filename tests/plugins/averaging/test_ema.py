import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from plugins.averaging.ema import EMA, ema
from plugins.base import Plugin, RecipeError, Refusal, Selection, Setting, Stage, check_selection


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


def test_zero_is_plain_training_bit_for_bit(problem, weights, same):
    assert same(weights(problem.fit(EMA(0.0), steps=11)), weights(problem.fit(steps=11)))


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


def test_refuses():
    with pytest.raises(RecipeError, match="decay must be a probability"):
        EMA(1.5)
    with pytest.raises(Refusal, match="bf16-mixed or 32-true"):
        check_selection(Selection([EMA()], Setting((3,), ()), precision="bf16-true"))


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
