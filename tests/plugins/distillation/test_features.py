import copy

import pytest
import torch
from torch import nn

from plugins.augmentation.mixup import Mixup
from plugins.base import Batch, Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task
from plugins.distillation._layers import inner
from plugins.distillation.features import FeatureDistillation, attention_loss, feature_loss
from plugins.inputs import Entry
from plugins.masks import places_kept
from plugins.preprocessing._layer import Affine
from plugins.recording import Recording
from plugins.wrapper.sam import SAM
from recipes.models.transformer import TransformerModel
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


NAMED = {"tokens": Entry((6,), "int64", 9, 0), "mask": Entry((6,), "bool")}


def transformer(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TransformerModel(NAMED, 3, width=8, heads=2, hidden=12, layers=1)


def test_places_that_a_mask_leaves_out_count_for_nothing():
    teacher, student = Teacher(transformer(0), NAMED), transformer(1)
    plugin = found(teacher, student, NAMED, layers=["encoder.0.mlp.1", "norm"])
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 0]).unsqueeze(1)
    x = {"tokens": torch.randint(10, (4, 6)), "mask": mask}
    here, there = Recording(plugin.recorded), plugin.ask(teacher, x)
    with here.opened():
        student(x)
    pairs = [(here[part][0], taught) for part, (taught,) in zip(plugin.recorded, there, strict=True)]

    class Asked:
        def mean(self, values, batch):
            self.values = values
            return values.mean()

        def record(self, name, value):
            pass

    plugin.record = lambda *arguments: None
    module = Asked()
    module.recorded = here
    plugin.penalty(module, Batch(x, {}, {}, extra={plugin.state_key: there}), {})
    of_samples = [
        sum((h[i][kept] - t[i][kept]).square().mean() for h, t in pairs) if kept.any() else torch.zeros(())
        for i, kept in enumerate(mask)
    ]
    torch.testing.assert_close(module.values, torch.stack(of_samples))


def test_maps_of_sequences_are_compared_where_there_is_something():
    h, t, mask = torch.randn(3, 4, 6), torch.randn(3, 5, 6), torch.arange(6) < torch.tensor([6, 2, 4]).unsqueeze(1)
    kept = places_kept(mask, h.shape, t.shape, channels_first=False)
    alone = [attention_loss(a[None, :, m], b[None, :, m]) for a, b, m in zip(h, t, mask, strict=True)]
    torch.testing.assert_close(attention_loss(h, t, kept), torch.cat(alone))
    square = torch.randn(3, 6, 6)  # as many channels as places
    assert places_kept(mask, square.shape, square.shape, channels_first=False).shape == (3, 6, 1)
    assert places_kept(mask, square.shape, square.shape, channels_first=True).shape == (3, 1, 6)
    assert places_kept(mask, (3, 6), (3, 6), channels_first=False) is None  # units of the whole sequence


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
