"""Rows that count differently: as often as they would stand there, however a step is cut, and in the loss alone."""

import csv
import json

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from plugins.base import RecipeError
from plugins.loss.by_task import LossByTask
from recipes.data.csv import CsvData
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.npz import NpzData
from recipes.data.source import Marked
from recipes.engine.losses import TaskLoss
from recipes.engine.module import RecipeModule
from tests.command import command, run_folder
from tests.ranks import on_ranks

ROWS, STEPS = 24, 4
NAMES = ["age", "height", "part", "count", "kind", "cost"]


def write(path, rows, names=NAMES):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture
def tables(tmp_path):
    """A table whose rows have the weights 0 to 3, six each, and one in which they stand as often instead; what is held out is the same."""
    draw = np.random.default_rng()
    counts = draw.permutation(np.repeat(range(4), ROWS // 4))
    rows = [[*draw.normal(size=2), "train", count, "abc"[draw.integers(3)], draw.normal()] for count in counts]
    held_out = [
        [*draw.normal(size=2), part, count, "abc"[count % 3], draw.normal()] for count in range(3) for part in ("val", "test")
    ]
    repeated = [row for row in rows for _ in range(row[3])]
    return write(tmp_path / "weighted.csv", [*rows, *held_out]), write(tmp_path / "repeated.csv", [*repeated, *held_out])


def set_up(path, target, weights):
    data = CsvData(
        str(path), target=target, inputs=["age", "height"], split="part", weights=weights, batch_size="full", unseen="ignore"
    )
    data.setup()
    return data


def trained(path, target, weights, parts=1, plugins=(), strategy="auto"):
    """All weights of a linear model after some steps on all rows each, with 64 bits, and the last metrics."""
    data, world = set_up(path, target, weights), dist.get_world_size() if dist.is_initialized() else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(2, data.tasks[0].outputs)
    module = RecipeModule(model, LossByTask(), lambda p: torch.optim.SGD(p, 0.1), parts=parts, standardize_targets=False)
    trainer = L.Trainer(
        max_steps=STEPS, accelerator="cpu", devices=world, callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, strategy=strategy, use_distributed_sampler=False, precision="64-true",
    )  # fmt: skip
    steps = StepLoader(data.splits["train"], "full", 0, parts, world=world)
    trainer.fit(module, steps, EvaluationLoader(data.splits["val"]))
    return torch.cat([weight.detach().flatten() for weight in module.model.parameters()]).tolist(), dict(module.metrics)


@pytest.mark.parametrize("target", ["kind", "cost"])
def test_a_weight_is_as_often_as_the_row_stands_there(tables, target):
    weighted, repeated = tables
    expected, _ = trained(repeated, target, None)
    for parts in (1, 2, 4):
        found, metrics = trained(weighted, target, "count", parts)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    plain, metrics_of_plain = trained(weighted, target, None)
    assert np.abs(np.subtract(plain, expected)).max() > 1e-3
    assert metrics.keys() == metrics_of_plain.keys()


@pytest.mark.parametrize("target", ["kind", "cost"])
def test_two_processes_divide_by_the_weights_of_all(tables, target):
    weighted, repeated = tables
    expected, _ = trained(repeated, target, None)
    for parts in (1, 2):
        for found, _ in on_ranks(2, trained, weighted, target, "count", parts, (), "ddp"):
            np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_metrics_count_all_rows_alike(tables):
    weighted, _ = tables
    _, metrics = trained(weighted, "cost", "count")
    data = set_up(weighted, "cost", "count")
    train = data.splits["train"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(2, 1).double()
    x, y, weight = train.x.double(), train.targets[""].double(), train.weight.double()[:, None]
    losses = []
    for _ in range(STEPS):
        error = (model(x) - y) ** 2
        losses.append(float(error.mean()))
        model.zero_grad()
        ((weight * error).sum() / weight.sum()).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    assert metrics["train/loss"] == pytest.approx(losses[-1], rel=1e-6)  # since the last validation
    val = data.splits["val"]
    assert val.weight.tolist() == [0, 1, 2]
    assert metrics["val/loss"] == pytest.approx(float(((model(val.x.double()) - val.targets[""]) ** 2).mean()), rel=1e-6)


def test_a_step_of_rows_that_do_not_count_changes_nothing(tmp_path):
    draw = np.random.default_rng(0)
    rows = [[*draw.normal(size=2), "train", int(n == 0), "ab"[n % 2], 0] for n in range(8)]
    path = write(tmp_path / "few.csv", [*rows, *([1, 1, part, 1, kind, 0] for part in ("val", "test") for kind in "ab")])
    data = set_up(path, "kind", "count")
    model = nn.Linear(2, 2)
    module = RecipeModule(model, LossByTask(), lambda p: torch.optim.SGD(p, 0.1))
    trainer = L.Trainer(
        max_steps=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    moved, before = [], None

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            nonlocal before
            before = model.weight.detach().clone()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            assert isinstance(batch, Marked)
            moved.append((batch.weight.tolist(), bool((model.weight != before).any())))

    trainer.callbacks.append(Watch())
    trainer.fit(module, StepLoader(data.splits["train"], 1, 0))
    assert sorted(moved) == [([0.0], False)] * 7 + [([1.0], True)]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_arrays_have_weights_that_go_with_their_samples(tmp_path, in_memory, workers):
    x = np.random.default_rng().normal(size=(40, 3)).astype(np.float32)
    w = x[:, 0].round().astype(int) ** 2
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(40) % 2, w=w)
    data = NpzData(str(tmp_path / "own.npz"), weights="w", in_memory=in_memory, workers=workers, batch_size=5)
    data.setup()
    loader, seen = StepLoader(data.splits["train"], 5, 0), 0
    for batch in loader:
        assert isinstance(batch, Marked)
        assert batch.weight.tolist() == (batch.x[:, 0].round() ** 2).tolist()
        seen += len(batch.weight)
    assert seen == 25
    few, more = data.splits["train"][torch.tensor([3, 1])], data.splits["train"] + data.splits["val"]
    assert few.weight.tolist() == [data.splits["train"].weight[3], data.splits["train"].weight[1]]
    assert len(more.weight) == len(more) and more.weight[len(data.splits["train"]) :].equal(data.splits["val"].weight)
    plain = NpzData(str(tmp_path / "own.npz"))
    plain.setup()
    assert plain.content == data.content and plain.fingerprint != data.fingerprint


def test_splits_of_a_file_have_weights_where_they_train(tmp_path):
    x, y = np.random.rand(20, 3).astype(np.float32), np.arange(20) % 2
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, w_train=np.arange(20), x_test=x, y_test=y)
    data = NpzData(str(tmp_path / "own.npz"), weights="w")
    data.setup()
    assert len(data.splits["train"].weight) == 18 and data.splits["test"].weight is None


def npz(tmp_path, w):
    x = np.random.rand(6, 3).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(6) % 2, w=np.array(w))
    return NpzData(str(tmp_path / "own.npz"), weights="w", validation=0.4)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        ([1, 2, -1, 0, 0, 0], r"w, sample 2: a weight must be a finite number ≥ 0 of 32 bits, got -1"),
        ([1.0, np.nan, 1, 0, 0, 0], "w, sample 1: a weight must be a finite number ≥ 0 of 32 bits, got nan"),
        ([1.0, 1e300, 1, 0, 0, 0], r"w, sample 1: a weight must be a finite number ≥ 0 of 32 bits, got 1e\+300"),
        ([[1], [1], [1], [1], [1], [1]], "one weight a sample"),
        (list("abcdef"), "w must be numbers"),
        ([1, 2], "arrays differ in length: x has 6, y has 6, w has 2"),
        ([0] * 6, "data.weights: all 2 training samples have the weight 0: there is nothing to learn from"),
    ],
)
def test_arrays_that_are_no_weights_are_refused(tmp_path, w, message):
    with pytest.raises(RecipeError, match=message):
        npz(tmp_path, w).setup()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("-2", "column count, line 4: a weight must be ≥ 0, got -2"),
        ("", "column count, line 4: the cell is empty: each row must have a weight, 0 to leave it out"),
        ("much", "column count, line 4: much is no number"),
        ("inf", "column count, line 4: inf is no finite number"),
        ("1e99", "column count, line 4: 1e99 is beyond the numbers of 32 bits"),
    ],
)
def test_cells_that_are_no_weights_are_refused_with_their_line(tables, cell, message):
    weighted, _ = tables
    names, *rows = csv.reader(weighted.open())
    rows[2][3] = cell
    write(weighted, rows, names)
    with pytest.raises(RecipeError, match=message):
        set_up(weighted, "kind", "count")


def test_a_column_of_weights_is_no_input(tables, tmp_path):
    weighted, _ = tables
    data = CsvData(str(weighted), target="kind", weights="count", split="part")
    data.setup()
    assert data._inputs == ["age", "height", "cost"]
    assert data.splits["train"].remark.endswith("target kind: 3 classes; rows count by count")
    for arguments, message in (
        ({"weights": "kind"}, "data.weights must be another column than data.target, got kind"),
        ({"weights": "counts"}, "data.weights: .* has no column counts: did you mean count?"),
        ({"weights": "count", "inputs": ["count"]}, "data.inputs must name other columns than data.weights, got count"),
    ):
        with pytest.raises(RecipeError, match=message):
            CsvData(str(weighted), target="kind", split="part", **arguments).setup()
    with pytest.raises(RecipeError, match="data.weights must name another array than data.input and data.target, got y"):
        NpzData("own.npz", weights="y")


def test_a_run_with_weights_is_tested_on_files_without(tables, tmp_path):
    weighted, _ = tables
    words = ("data=csv", f"data.path={weighted}", "data.target=kind", "data.split=part", "data.inputs=[age,height]")
    words += ("model=linear", "max_steps=3", "logger=[]", "trainer.accelerator=cpu")
    done = command("train.py", *words, "data.weights=count", cwd=tmp_path, forked=True)
    assert done.returncode == 0 and "rows count by count" in done.stdout
    folder = run_folder(tmp_path)
    names, *rows = csv.reader(weighted.open())
    for few, which in ((rows, "the test split"), (rows[:20], "all of them")):
        other = write(tmp_path / "other.csv", [[*row[:3], *row[4:]] for row in few], [*names[:3], *names[4:]])
        found = command("evaluate.py", str(folder), f"data.path={other}", cwd=tmp_path, forked=True)
        assert found.returncode == 0 and which in found.stdout
    again = command("evaluate.py", str(folder), cwd=tmp_path, forked=True)
    assert again.returncode == 0 and "the test split" in again.stdout
    assert json.loads((folder / "result.json").read_text())["metrics"]["test/acc"] in (0, 1 / 3, 2 / 3, 1)


def test_a_resume_with_other_weights_is_refused(tables, tmp_path):
    weighted, _ = tables
    words = ("data=csv", f"data.path={weighted}", "data.target=kind", "data.split=part", "data.inputs=[age,height]")
    words += ("data.weights=count", "model=linear", "max_steps=3", "logger=[]", "trainer.accelerator=cpu")
    assert command("train.py", *words, "hydra.run.dir=run", cwd=tmp_path, forked=True).returncode == 0
    names, *rows = csv.reader(weighted.open())
    rows[0][3] = "7"
    write(weighted, rows, names)
    done = command("train.py", "resume=run", "max_steps=5", cwd=tmp_path, forked=True)
    assert done.returncode == 2 and "error: " in done.stderr and "data" in done.stderr


def test_a_loss_of_a_batch_cannot_be_weighted(tables):
    weighted, _ = tables

    def own(output, target):
        return nn.functional.cross_entropy(output, target)

    task = set_up(weighted, "kind", None).tasks[0]
    with pytest.raises(RecipeError, match=r"they are weighted \(as by data.weights, \+regularizer=class_weights or"):
        TaskLoss(own, task)(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.ones(4))
