import copy

import pytest
import torch
from torch import nn

from plugins.augmentation.mixup import Mixup
from plugins.base import Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task
from plugins.distillation._layers import inner
from plugins.distillation.features import FeatureDistillation, attention_loss, feature_loss
from plugins.preprocessing._layer import Affine
from plugins.wrapper.sam import SAM
from tests.harness import build, config_of, fit, parameters
from tests.recipes.engine.weighing import EQUAL, STEPS, Heavy, data, flat, heavy, numbers, optimizer, train

TASK = Task("", "classification", 3)


def net(width=5, seed=1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))


class Teacher(nn.Module):
    """What a run folder gives, without a folder."""

    def __init__(self, model=None, shape=(4,)):
        super().__init__()
        self.model, self.passes = model or net(seed=9), 0
        self.setting = Setting(shape, (TASK,))

    def outputs(self, x):
        self.passes += 1
        return {"": self.model(x)}


class Taught(FeatureDistillation):
    """With a teacher at hand: a plain loader knows no folders."""

    group, option = "distillation", "features"

    def prepare(self, given):
        super().prepare(Setting(given.shape, given.tasks, given.seed, given.training_inputs, lambda folder: self.at_hand))


def taught(teacher, **arguments):
    plugin = Taught("somewhere", **arguments)
    plugin.at_hand = teacher
    return plugin


def found(teacher, student, shape=(4,), **arguments):
    """The plugin with its places in a student."""
    plugin = taught(teacher, **arguments)
    plugin.prepare(Setting(shape, (TASK,), training_inputs=lambda: iter([])))
    plugin.transform_model(student)
    return plugin


def test_the_definitions_written_out():
    h, t = torch.randn(6, 3, 4, 5), torch.randn(6, 3, 4, 5)
    torch.testing.assert_close(
        feature_loss(h, t), torch.tensor([nn.functional.mse_loss(a, b) for a, b in zip(h, t, strict=True)])
    )
    other = torch.randn(6, 7, 4, 5)

    def attention(maps):  # equation 1 and 2 of the paper, p = 2
        flat = torch.stack([(maps[:, c] ** 2).flatten(1) for c in range(maps.shape[1])]).sum(0)
        return flat / flat.norm(dim=1, keepdim=True)

    torch.testing.assert_close(attention_loss(h, other), (attention(h) - attention(other)).norm(dim=1) ** 2)
    assert feature_loss(h, h).abs().max() == 0 and attention_loss(h, 3 * h).abs().max() < 1e-12


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_a_loop_by_hand(weighted, parts):
    x, y = data("plain")
    teacher, by_hand = Teacher(), net()
    h_teacher = copy.deepcopy(teacher.model)[:2](x).detach()
    steps, b = optimizer(by_hand.parameters()), heavy(x) if weighted else torch.ones(len(x))
    for _ in range(STEPS):
        steps.zero_grad()
        hidden = by_hand[1](by_hand[0](x))
        distance = (hidden - h_teacher).square().mean(1) + nn.functional.cross_entropy(
            by_hand[2](hidden), y, reduction="none"
        ) / 0.7
        (0.7 * (b * distance).sum() / b.sum()).backward()
        steps.step()
    plugins = [taught(teacher, weight=0.7), *([Heavy()] if weighted else [])]
    module = train("by_task", x, y, parts, plugins, model=net())
    torch.testing.assert_close(numbers(module), flat(by_hand), **EQUAL)
    assert not any("teacher" in name for name in module.state_dict()) and not teacher.training


def test_the_teacher_is_asked_once_a_step_behind_all_augmentation():
    teacher = Teacher()

    class Look(Plugin):
        stage, group, option = Stage.DIAGNOSTICS, "test", "look"

        def penalty(self, module, batch, outputs):
            torch.testing.assert_close(batch.extra["distillation/features"][0][0], teacher.model[:2](batch.x))

    x, y = data("plain")
    train("by_task", x, y, 2, [Mixup(1.0), taught(teacher), SAM(), Look()], model=net())
    assert teacher.passes == 2 * STEPS  # of each part


def test_maps_of_other_channels_are_compared_by_attention():
    def maps(channels, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * channels, 3))

    with torch.random.fork_rng(devices=[]):
        teacher, student = Teacher(maps(6, 0), (1, 4, 4)), maps(2, 1)
    plugin = found(teacher, student, (1, 4, 4), layers=["1"])
    assert plugin._pairs == [(student[1], teacher.model[1])]
    with pytest.raises(RecipeError, match=r"2 gives \(32,\), and 2 of the teacher \(96,\): name layers of one shape"):
        found(teacher, student, (1, 4, 4), layers=["2"])


def test_layers_are_named_in_both_models():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.head = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.act(self.first(x)))

    teacher, student = Teacher(Named()), Affine(net(), torch.zeros(4), torch.ones(4))
    assert found(teacher, student)._pairs == [(student.model[1], teacher.model.act)]  # the last hidden activation of each
    plugin = found(teacher, student, layers={"0": "first", "1": "act"})
    assert plugin._pairs == [(student.model[0], teacher.model.first), (student.model[1], teacher.model.act)]
    with pytest.raises(RecipeError, match=r"1 is to learn from 1, which the teacher has not; its activations are act: type "):
        found(teacher, student, layers=["1"])
    assert found(Teacher(), student, layers=["*"])._pairs[0][0] is student.model[1]
    assert inner(student) is student.model


@pytest.mark.parametrize(
    ("arguments", "named"), [({"weight": -1.0}, "weight"), ({"layers": []}, "layers"), ({"layers": {"a": 1}}, "layers")]
)
def test_refuses_values_out_of_range(arguments, named):
    with pytest.raises(RecipeError, match=f"^{named} must be"):
        FeatureDistillation("x", **arguments)


def test_refuses_to_go_without_a_teacher_or_with_one_of_other_samples():
    with pytest.raises(Refusal, match=r"distillation.teacher=FOLDER"):
        FeatureDistillation().check(Selection([], Setting((4,), (TASK,))))
    with pytest.raises(RecipeError, match=r"samples of shape \(5,\), these have \(4,\)"):
        found(Teacher(shape=(5,)), net())


def test_a_run_teaches_another_and_is_not_kept(tmp_path):
    config = config_of(["distillation/features"])
    module, plain = fit(config, tmp_path, 3), fit(config_of([]), tmp_path / "plain", 3)
    assert module.state_dict().keys() == build(config_of([])).state_dict().keys()
    assert any(not torch.equal(value, parameters(plain)[name]) for name, value in parameters(module).items())
