import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.augmentation.mixup import Mixup
from plugins.base import Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task
from plugins.distillation._teacher import distillation_loss
from plugins.distillation.logits import LogitDistillation
from plugins.loss.bce import BinaryCrossEntropy
from plugins.loss.by_task import LossByTask
from plugins.loss.hinge import Hinge
from plugins.loss.mse import MSE
from plugins.regularizer.class_weights import ClassWeights
from plugins.wrapper.sam import SAM
from recipes.run.build import load_run
from tests.command import SMALL, mistake
from tests.harness import build, config_of, digits, fit, parameters
from tests.recipes.engine.weighing import EQUAL, STEPS, Heavy, data, flat, heavy, model, numbers, optimizer, train

TASK = Task("", "classification", 3)


class Teacher(nn.Module):
    """What a run folder gives, without a folder."""

    def __init__(self, shape=(4,), *tasks):
        super().__init__()
        self.loss = LossByTask()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(9)
            self.model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.setting = Setting(shape, tasks or (TASK,))

    def outputs(self, x):
        return {"": self.model(x)}


def setting(teacher, *tasks):
    return Setting((4,), tasks or (TASK,), training_inputs=lambda: iter([]), load_run=lambda folder: teacher)


class Taught(LogitDistillation):
    """With a teacher at hand: a plain loader knows no folders."""

    group, option = "distillation", "logits"

    def prepare(self, given):
        super().prepare(Setting(given.shape, given.tasks, given.seed, given.training_inputs, lambda folder: self.at_hand))


def taught(teacher, *arguments):
    plugin = Taught("somewhere", *arguments)
    plugin.at_hand = teacher
    return plugin


def written_out(student, teacher, temperature):
    p, q = ((logits / temperature).exp() / (logits / temperature).exp().sum(1, keepdim=True) for logits in (teacher, student))
    return temperature**2 * (p * (p.log() - q.log())).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_definition_written_out(temperature):
    student, teacher = 3 * torch.randn(9, 5), 3 * torch.randn(9, 5)
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), written_out(student, teacher, temperature))
    assert distillation_loss(student, student, temperature).abs().max() < 1e-6
    maps = torch.randn(2, 3, 5, 2, 2)
    of_places = [written_out(*maps[:, :, :, i, j], temperature) for i in range(2) for j in range(2)]
    torch.testing.assert_close(distillation_loss(*maps, temperature).flatten(1), torch.stack(of_places, 1))


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize(("loss", "weighted"), [("by_task", False), ("by_task", True), ("sum", False), ("sum", True)])
def test_equals_a_loop_by_hand(loss, weighted, weight, parts):
    x, y = data("plain")
    b = heavy(x) if weighted else torch.ones(len(x))
    teacher, by_hand = Teacher(), model("plain")
    kept = copy.deepcopy(teacher.state_dict())
    steps, z = optimizer(by_hand.parameters()), copy.deepcopy(teacher).eval().outputs(x)[""].detach()
    for _ in range(STEPS):
        steps.zero_grad()
        output = by_hand(x)
        values = (1 - weight) * functional.cross_entropy(output, y, reduction="none") + weight * written_out(output, z, 2.0)
        ((b * values).sum() / (1 if loss == "sum" else b.sum())).backward()
        steps.step()
    module = train(loss, x, y, parts, [taught(teacher, 2.0, weight), *([Heavy()] if weighted else [])])
    torch.testing.assert_close(numbers(module), flat(by_hand), **EQUAL)
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in kept.items())
    assert not teacher.training and not any("teacher" in name or "BatchNorm" in name for name in module.state_dict())
    # what is logged as loss is that of the labels, so that runs compare
    expected = float(functional.cross_entropy(by_hand(x), y).detach())
    assert module.metrics["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_the_teacher_sees_what_the_student_sees_once_a_step():
    seen = []

    class Watched(Teacher):
        def outputs(self, x):
            seen.append(x.clone())
            return super().outputs(x)

    class Look(Plugin):
        stage, group, option = Stage.DIAGNOSTICS, "test", "look"

        def penalty(self, module, batch, outputs):
            assert torch.equal(seen[-1], batch.x)

    x, y = data("plain")
    train("by_task", x, y, 1, [Mixup(1.0), taught(Watched()), SAM(), Look()])
    assert len(seen) == STEPS and not any(torch.equal(each, x) for each in seen)


def test_both_losses_have_the_weights_of_their_samples():
    x, y = data("plain")
    teacher, weight = Teacher(), torch.tensor([1.0, 4.0, 0.5])
    z, output = copy.deepcopy(teacher).eval().outputs(x)[""].detach(), model("plain")(x).detach()
    distilled = (weight[y] * written_out(output, z, 4.0)).sum() / weight[y].sum()
    expected = 0.5 * functional.cross_entropy(output, y, weight) + 0.5 * distilled
    module = train("by_task", x, y, 4, [taught(teacher), ClassWeights([1, 4, 0.5])], steps=1)
    torch.testing.assert_close(module.last_objective, expected)


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"weight": 1.5}, {"teacher": ""}])
def test_refuses_values_out_of_range(arguments):
    with pytest.raises(RecipeError, match=f"^{next(iter(arguments))} must be"):
        LogitDistillation(**arguments)


def test_refuses_a_teacher_of_other_data():
    with pytest.raises(RecipeError, match=r"samples of shape \(5,\), these have \(4,\)"):
        LogitDistillation("x").prepare(setting(Teacher((5,))))
    with pytest.raises(RecipeError, match="knows 7 classes for target y, which has 3 classes"):
        LogitDistillation("x").prepare(setting(Teacher((4,), Task("", "classification", 7))))
    with pytest.raises(RecipeError, match="knows none for target a"):
        LogitDistillation("x").prepare(setting(Teacher(), Task("a", "classification", 3)))
    with pytest.raises(RecipeError, match="knows 3 classes of other names"):
        LogitDistillation("x").prepare(setting(Teacher((4,), Task("", "classification", 3, ("a", "b", "c")))))


@pytest.mark.parametrize("loss", [MSE(), Hinge(), BinaryCrossEntropy()], ids=lambda loss: type(loss).__name__)
def test_refuses_a_teacher_whose_outputs_are_no_logits(loss):
    teacher, name = Teacher(), type(loss).__name__
    teacher.loss = loss
    with pytest.raises(
        RecipeError, match=rf"^distillation.teacher=x was trained with {name}, whose .* type \+distillation=features$"
    ):
        LogitDistillation("x").prepare(setting(teacher))


@pytest.mark.parametrize(("there", "here", "told"), [("a", "b", 1), ("a", "a", 0), (None, "b", 0), ("a", None, 0)])
def test_a_teacher_of_another_split_is_told(there, here, told):
    teacher, plugin = Teacher(), LogitDistillation("x")
    teacher.setting = replace(teacher.setting, split=there)
    plugin.remarks = ["of its own"]
    for _ in range(2):
        plugin.prepare(replace(setting(teacher), split=here))
    expected = "the teacher x was trained on other data, or another split of them: it may know samples that are tested here"
    assert plugin.remarks == ["of its own", *[expected] * told]


def test_refuses_what_it_cannot_teach():
    with pytest.raises(Refusal, match="needs a classification task"):
        LogitDistillation("x").check(Selection([], Setting((4,), (Task("", "regression", 1),))))
    with pytest.raises(Refusal, match="distillation.teacher=FOLDER"):
        LogitDistillation().check(Selection([], Setting((4,), (TASK,))))
    with pytest.raises(RecipeError, match="makes probabilities of logits, which MSE does not train"):
        build(config_of(["distillation/logits", "loss/mse"]))


# ------------------------------------------------------------------ with a folder


def test_a_run_teaches_another(tmp_path):
    config = config_of(["distillation/logits"])
    config["distillation"]["weight"] = 1.0
    module, teacher = fit(config, tmp_path, 3), load_run(config["distillation"]["teacher"])
    x = digits().splits["train"].x[:9]
    plugin = module.plugins[[plugin.option for plugin in module.plugins].index("logits")]
    torch.testing.assert_close(plugin._model.outputs(x), teacher.outputs(x))
    assert module.state_dict().keys() == build(config_of([])).state_dict().keys()
    plain = fit(config_of([]), tmp_path / "plain", 3)
    assert any(not torch.equal(value, parameters(plain)[name]) for name, value in parameters(module).items())


def test_a_finished_run_needs_no_teacher():
    plugin = LogitDistillation("nowhere")
    plugin.prepare(Setting((4,), (TASK,), load_run=load_run))  # as `evaluate.py` does
    assert plugin._model is None


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_missing_folder_is_one_line(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    told = mistake("+distillation=logits", f"distillation.teacher={folder}", *SMALL, cwd=tmp_path, forked=True)
    assert f"{folder} is no run" in told


def test_without_a_teacher_it_is_one_line(tmp_path):
    told = mistake("+distillation=logits", *SMALL, cwd=tmp_path, forked=True)
    assert "type distillation.teacher=FOLDER" in told
