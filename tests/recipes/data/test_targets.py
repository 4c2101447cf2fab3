"""What a target is, and what a model must return for it: right, refused, or told."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import RecipeError, Task
from plugins.loss.by_task import LossByTask
from plugins.loss.cross_entropy import CrossEntropy
from plugins.regularizer.label_smoothing import LabelSmoothing
from recipes.data.targets import as_outputs, as_target, describe, expect_meant, kind_of
from recipes.engine.module import RecipeModule

SAMPLES = 48


def fit(model, data, *plugins, loss=None, steps=4, **options):
    """The module after a few steps on tensors, or on whatever loader is given, with a validation of the same samples."""
    loader = data if isinstance(data, DataLoader) else DataLoader(TensorDataset(*data), batch_size=24)
    module = RecipeModule(model, loss or LossByTask(), lambda groups: torch.optim.SGD(groups, 0.1), **options)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(plugins),
    )
    trainer.fit(module, loader, loader)
    return module


def features():
    return torch.randn(SAMPLES, 6)


def labels():
    return torch.arange(SAMPLES) % 3


class Returns(nn.Module):
    """A linear layer whose output something is made of."""

    def __init__(self, make, outputs=3):
        super().__init__()
        self.layer, self.make = nn.Linear(6, outputs), make

    def forward(self, x):
        return self.make(self.layer(x))


# ------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (torch.tensor([0, 1]), "classification"),
        (torch.tensor([[0], [1]]), "classification"),
        (torch.tensor([True, False]), "classification"),
        (torch.tensor([0, 1], dtype=torch.uint8), "classification"),
        (torch.zeros(4, 8, 8, dtype=torch.long), "classification"),
        (torch.zeros(4, 7, dtype=torch.uint8), "classification"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.bool), "classification"),
        (torch.rand(2), "regression"),
        (torch.rand(2, 1), "regression"),
        (torch.rand(2, 5).double(), "regression"),
    ],
)
def test_kind(target, kind):
    assert kind_of("", target) == kind


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (torch.zeros(4, 0, 8, dtype=torch.long), "no label a sample"),
        (torch.zeros(4, 8, 8), "numbers \\(samples, columns\\)"),
        (torch.zeros(4, 0), "numbers \\(samples, columns\\)"),
        (torch.zeros(4, dtype=torch.complex64), "complex"),
    ],
)
def test_targets_of_no_task_are_refused_before_the_first_batch(target, says):
    with pytest.raises(RecipeError, match=says):
        kind_of("mask", target)
    with pytest.raises(RecipeError, match=says):
        fit(nn.Linear(6, 3), (features(), target.expand(4, *target.shape[1:]).repeat(12, *[1] * (target.ndim - 1))))


@pytest.mark.parametrize("places", [(8, 8), (7,), (1, 8, 8)])
def test_a_label_for_each_place_needs_an_output_for_each(places):
    with pytest.raises(
        RecipeError, match=r"target y has a label for each of the places .* model=fcn.* give targets \(samples,\)"
    ):
        fit(nn.Linear(6, 3), (features(), torch.randint(3, (SAMPLES, *places))))


def test_class_maps_of_another_shape_are_refused():
    task = Task("", "classification", 3, shape=(4, 4))
    assert as_target(task, torch.zeros(2, 4, 4).long()).shape == (2, 4, 4)
    for shape in ((2, 4, 5), (2, 4), (2,), (2, 1)):
        with pytest.raises(RecipeError, match="target y of 3 classes at each of 4 × 4 places now has"):
            as_target(task, torch.zeros(shape).long())


def test_a_column_of_labels_is_as_labels():
    x, y = features(), labels()
    runs = []
    for target in (y, y[:, None]):
        torch.manual_seed(0)
        runs.append(fit(nn.Linear(6, 3), (x, target), LabelSmoothing(0.1)))
    assert runs[0].metrics == runs[1].metrics and 0 <= runs[0].metrics["val/acc"] <= 1
    assert torch.equal(runs[0].model.weight, runs[1].model.weight)


def test_several_columns_of_floats_are_a_regression():
    x = features()
    y = x @ torch.randn(6, 4)
    module = fit(nn.Linear(6, 4), (x, y), steps=60)
    with torch.no_grad():
        assert module.metrics["val/loss"] == pytest.approx(float(nn.functional.mse_loss(module.model(x), y)), rel=1e-5)
    assert module.metrics["val/loss"] < float(y.square().mean()) / 10 and "val/acc" not in module.metrics


def test_soft_labels_are_taken_by_cross_entropy_where_it_is_asked_for():
    x, y = features(), torch.rand(SAMPLES, 3).softmax(1)
    module = fit(nn.Linear(6, 3), (x, y), loss=CrossEntropy())
    with torch.no_grad():
        assert module.metrics["val/loss"] == pytest.approx(float(nn.functional.cross_entropy(module.model(x), y)), rel=1e-5)


def test_floats_that_look_like_labels_are_asked_about():
    x, y = features(), labels().float()
    with pytest.raises(RecipeError, match=r"holds floats, but none other than 0 to 2: .*whole numbers"):
        fit(nn.Linear(6, 1), (x, y))
    assert "val/acc" not in fit(nn.Linear(6, 1), (x, y[:, None])).metrics
    assert 0 <= fit(nn.Linear(6, 3), (x, y.long())).metrics["val/acc"] <= 1
    for numbers in (y + 1, y * 2, torch.arange(SAMPLES).float(), torch.zeros(SAMPLES), y[:10]):
        expect_meant("", numbers, "")  # no labels


def test_a_batch_of_another_kind_is_refused():
    task = Task("", "classification", 3)
    assert as_target(task, torch.tensor([[1], [2]])).tolist() == [1, 2]
    with pytest.raises(RecipeError, match="was a classification so far"):
        as_target(task, torch.rand(4))


def test_words_for_a_target():
    assert [describe(Task("", *what)) for what in (("classification", 3), ("regression", 1), ("regression", 2))] == [
        "3 classes",
        "a number",
        "2 numbers",
    ]


# ------------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda output: (output, output), "returns a tuple"),
        (lambda output: [output], "returns a list"),
        (lambda output: {"logits": output}, "returns a dict with logits, expected a tensor alone"),
        (lambda output: {"": None}, "expected a tensor alone"),
        (lambda output: None, "returns a NoneType"),
        (lambda output: output.mean(1), "one output for the labels"),
        (lambda output: output[:, None].expand(-1, 5, -1), r"the shape \(24, 5, 3\) for target y of 3 classes"),
        (lambda output: output[:1], r"the shape \(1, 3\)"),
    ],
)
def test_what_a_model_may_not_return(make, says):
    with pytest.raises(RecipeError, match=says) as refused:
        fit(Returns(make), (features(), labels()))
    assert "\n" not in str(refused.value)


def test_one_logit_for_two_classes_is_refused():
    with pytest.raises(RecipeError, match="one output for the labels of target y: give it one output a class"):
        fit(nn.Linear(6, 1), (features(), labels() % 2), loss=lambda output, target: output.mean())


def test_an_output_without_a_column_is_a_number():
    x = features()
    y = x @ torch.randn(6)
    runs = []
    for make in (lambda output: output[:, 0], lambda output: output):
        torch.manual_seed(0)
        runs.append(fit(Returns(make, 1), (x, y), steps=20))
    assert runs[0].metrics == runs[1].metrics
    with torch.no_grad():
        assert runs[0].metrics["val/loss"] == pytest.approx(float((runs[0].model(x) - y).square().mean()), rel=1e-5)


def test_a_mapping_with_more_than_is_needed():
    tasks = (Task("a", "classification", 3), Task("b", "regression", 1))
    given = {"a": torch.rand(4, 3), "b": torch.rand(4), "features": torch.rand(4, 9)}
    found = as_outputs(tasks, given, 4)
    assert {name: tuple(output.shape) for name, output in found.items()} == {"a": (4, 3), "b": (4, 1)}


# ------------------------------------------------------------------ batches and inputs


class Items(torch.utils.data.Dataset):
    """A data set whose items are made of inputs and labels."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return self.make(torch.randn(6), index % 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: {"image": x, "label": y},
        lambda x, y: (x, y, y),
        lambda x, y: x,
        lambda x, y: (x, {"a": {"b": y}}),
        lambda x, y: (x, (y, y)),
        lambda x, y: ({"x": {"x": x}}, y),
        lambda x, y: ({1: x}, y),
        lambda x, y: ({}, y),
    ],
)
def test_a_batch_that_is_no_pair_is_one_line(make):
    with pytest.raises(RecipeError, match=r"a loader must yield \(inputs, targets\)") as refused:
        fit(nn.Linear(6, 3), DataLoader(Items(make), batch_size=24))
    assert "\n" not in str(refused.value)


def test_whole_numbers_reach_an_embedding_as_they_are():
    tokens, y = torch.randint(50, (SAMPLES, 7)), labels()
    model = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(28, 3))
    module = fit(model, (tokens, y), steps=30)
    with torch.no_grad():
        assert module.metrics["val/loss"] == pytest.approx(float(nn.functional.cross_entropy(model(tokens), y)), rel=1e-5)
    assert module.metrics["val/loss"] < 1.05


def test_whole_numbers_reach_other_layers_as_floats():
    counts, y = torch.randint(5, (SAMPLES, 6)), labels()
    module = fit(nn.Linear(6, 3), (counts, y))
    with torch.no_grad():
        assert module.metrics["val/loss"] == pytest.approx(
            float(nn.functional.cross_entropy(module.model(counts.float()), y)), rel=1e-5
        )


def test_npz_with_columns(tmp_path):
    from recipes.data.npz import NpzData

    x = np.random.rand(SAMPLES, 6).astype(np.float32)
    for name, y, kind in (
        ("columns", np.random.rand(SAMPLES, 4), ("regression", 4)),
        ("column", np.random.rand(SAMPLES, 1), ("regression", 1)),
        ("labels", np.arange(SAMPLES)[:, None] % 3, ("classification", 3)),
        ("ones", (np.arange(SAMPLES) % 3).astype(float)[:, None], ("regression", 1)),
    ):
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        data = NpzData(str(tmp_path / f"{name}.npz"))
        data.setup()
        ((task,), (kind, outputs)) = data.tasks, kind
        assert (task.kind, task.outputs) == (kind, outputs)
    for name, y, says in (
        ("maps", np.zeros((SAMPLES, 8, 8)), "labels .samples, .places. such as class maps"),
        ("floats", (np.arange(SAMPLES) % 3).astype(float), "none other than 0 to 2"),
    ):
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        with pytest.raises(RecipeError, match=says):
            NpzData(str(tmp_path / f"{name}.npz")).setup()
