"""Losses that weigh their samples: a step in pieces, of one process or two, is the step of the whole batch."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.augmentation.mixup import Mixup
from plugins.base import Plugin, RecipeError, Stage, Task, class_probabilities
from plugins.multitask.equal import EqualWeights
from plugins.regularizer.l2 import L2Penalty
from plugins.regularizer.label_smoothing import LabelSmoothing, smooth
from plugins.wrapper.sam import SAM
from recipes.engine.losses import TaskLoss
from recipes.engine.module import RecipeModule
from recipes.engine.samples import ignored_label, per_sample
from recipes.run.build import build_data
from tests.ranks import on_ranks
from tests.recipes.engine.weighing import (
    CLASSES,
    EQUAL,
    LOSSES,
    NUMBERS,
    OF_COLUMNS,
    SAMPLES,
    STEPS,
    WEIGHT,
    Heavy,
    data,
    flat,
    hard_ones,
    heavy,
    model,
    numbers,
    on_a_rank,
    optimizer,
    train,
)

TASK = Task("", "classification", 3)


def names_of(plugins):
    """What a test with these techniques is called."""
    return "+".join(plugin.state_key for plugin in plugins) or "none"


def single_values(name, output, target):
    """The values of samples and what they are divided by, written out."""
    loss = LOSSES[name]
    log = output if name == "nll" else output.log_softmax(1)
    ones = torch.ones(len(output))
    if name in CLASSES:
        weight = getattr(loss, "weight", None)
        weight = WEIGHT if name == "function" else torch.ones(3) if weight is None else weight
        ignored = 1 if name == "function" else getattr(loss, "ignore_index", -100)
        kept = (target != ignored).float()
        if name == "margin":
            of_label = output.gather(1, target[:, None])
            margins = (1 - of_label + output).clamp(min=0) * weight[target][:, None]
            return (margins * (1 - class_probabilities(target, 3))).sum(1) / 3, ones
        if name == "own":
            values = functional.cross_entropy(output, target, reduction="none")
            return (1 - (-values).exp()) * values, ones
        share = smooth(target, 3, getattr(loss, "label_smoothing", 0.0), "all")
        return -(weight * share * log).sum(1) * kept, weight[target] * kept
    if name in ("mse", "sum of squares", "ours"):
        squares = (output - target) ** 2
        return squares.sum(1) if name == "sum of squares" else squares.mean(1), ones
    if name == "kl":
        return (target * (target.log() - output)).sum(1), ones
    positive, negative = output.sigmoid().log(), (-output).sigmoid().log()
    return -(OF_COLUMNS * (torch.tensor([2.0, 0.3]) * target * positive + (1 - target) * negative)).mean(1), ones


def written_out(name, output, target, weight=1.0):
    values, divisors = single_values(name, output, target)
    if "sum" in name:
        return (values * weight).sum()
    return (values * weight).sum() / (divisors * weight).sum()


def by_hand(name, x, y, weight=1.0):
    """The weights after some steps on the whole batch."""
    own = model(name)
    steps = optimizer(own.parameters())
    for _ in range(STEPS):
        steps.zero_grad()
        written_out(name, own(x), y, weight).backward()
        steps.step()
    return own


def mean_of(name, own, x, y):
    """What is logged: of a sum, the mean."""
    with torch.no_grad():
        values, divisors = single_values(name, own(x), y)
    if name == "sum of weights":
        divisors = (y != 2).float()
    elif "sum" in name:
        divisors = torch.ones(len(y))
    return float(values.sum() / divisors.sum())


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("by_task", "ours", "value a sample")])
def test_what_is_written_out_is_torchs(name):
    x, y = data(name)
    output = model(name)(x)
    torch.testing.assert_close(written_out(name, output, y), LOSSES[name](output, y))


@pytest.mark.parametrize("parts", [1, 4, 5])
@pytest.mark.parametrize("name", LOSSES)
def test_pieces_make_up_the_whole_batch(name, parts):
    x, y = data(name)
    expected = by_hand(name, x, y)
    module = train(name, x, y, parts)
    torch.testing.assert_close(numbers(module), flat(expected), **EQUAL)
    assert module.metrics["val/loss"] == pytest.approx(mean_of(name, expected, x, y), rel=1e-5)
    last = model(name)
    assert train(name, x, y, parts, steps=1).metrics["train/loss"] == pytest.approx(mean_of(name, last, x, y), rel=1e-5)
    assert float(train(name, x, y, parts, steps=1).last_objective) == pytest.approx(
        written_out(name, last(x), y).item(), rel=1e-5
    )


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_samples_multiply(name, parts):
    x, y = data(name)
    module = train(name, x, y, parts, [Heavy()])
    expected = by_hand(name, x, y, heavy(x))
    torch.testing.assert_close(numbers(module), flat(expected), **EQUAL)
    assert module.metrics["val/loss"] == pytest.approx(mean_of(name, expected, x, y), rel=1e-5)  # so that runs compare


def test_two_processes_make_up_the_whole_batch():
    for found in on_ranks(2, on_a_rank, 2):
        for (name, weighted), (values, metrics) in found.items():
            x, y = data(name)
            expected = by_hand(name, x, y, heavy(x) if weighted else 1.0)
            torch.testing.assert_close(
                torch.tensor(values), flat(expected), **EQUAL, msg=lambda text, name=name: f"{name}: {text}"
            )
            assert metrics["val/loss"] == pytest.approx(mean_of(name, expected, x, y), rel=1e-5), name


# ------------------------------------------------------------------ labels that are left out


@pytest.mark.parametrize("plugins", [(), (LabelSmoothing(0.2),), (SAM(),), (L2Penalty(0.1),)], ids=names_of)
@pytest.mark.parametrize("label", [-100, 255, 3])
@pytest.mark.parametrize("parts", [1, 4])
def test_ignored_samples_are_as_good_as_gone(label, parts, plugins):
    x, y = data("plain")
    left_out = torch.arange(SAMPLES) % 3 == 0
    left_out[:6] = True  # the whole first piece
    loss = nn.CrossEntropyLoss(WEIGHT, ignore_index=label)
    module = train("plain", x, y.masked_fill(left_out, label), parts, copy.deepcopy(plugins), loss=loss)
    gone = train("plain", x[~left_out], y[~left_out], 1, copy.deepcopy(plugins), loss=loss)
    torch.testing.assert_close(numbers(module), numbers(gone), **EQUAL)
    for metric in ("val/loss", "train/loss", "val/acc", "train/acc"):
        assert module.metrics[metric] == pytest.approx(gone.metrics[metric], rel=1e-5), metric


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("label", "loss"), [(-100, nn.CrossEntropyLoss()), (1, nn.CrossEntropyLoss(torch.tensor([1.0, 0.0, 1.0])))]
)
def test_a_step_in_which_nothing_counts_changes_nothing(label, loss, parts):
    x, y = data("plain")
    module = train("plain", x, torch.full_like(y, label), parts, loss=loss)
    assert torch.equal(numbers(module), flat(model("plain")))
    assert module.metrics["val/loss"] == 0 and module.metrics["train/loss"] == 0


@pytest.mark.parametrize("label", [-100, 7])
def test_a_mixed_sample_counts_by_its_label_that_is_kept(label):
    """One of a pair is ignored: what is left is the share of the other."""
    x, y = torch.randn(2, 4), torch.tensor([2, label])
    seen = []

    class Look(Plugin):
        stage, group, option = Stage.DIAGNOSTICS, "test", "look"

        def penalty(self, module, batch, outputs):
            seen.append((batch, {name: value.detach() for name, value in outputs.items()}))

    module = train("plain", x, y, 1, [Mixup(1.0), Look()], steps=1, loss=nn.CrossEntropyLoss(ignore_index=label))
    (batch, outputs) = seen[0]
    shares = batch.weight[""]
    assert (shares < 1).any()
    torch.testing.assert_close(batch.targets[""][shares > 0], class_probabilities(torch.tensor([2, 2]), 3)[shares > 0])
    expected = (shares * functional.cross_entropy(outputs[""], torch.tensor([2, 2]), reduction="none")).sum() / shares.sum()
    torch.testing.assert_close(module.last_objective, expected)


# ------------------------------------------------------------------ softened labels


@pytest.mark.parametrize("parts", [1, 4])
def test_smoothed_labels_with_class_weights(parts):
    x, y = data("plain")
    own = model("plain")
    shares = smooth(y, 3, 0.2)
    values = -(WEIGHT * shares * own(x).log_softmax(1)).sum(1)
    torch.testing.assert_close(values.mean(), nn.CrossEntropyLoss(WEIGHT)(own(x), shares))  # the values are torch's, over m
    module = train("plain", x, y, parts, [LabelSmoothing(0.2)], steps=1, loss=nn.CrossEntropyLoss(WEIGHT))
    torch.testing.assert_close(module.last_objective, (values.sum() / (shares @ WEIGHT).sum()).detach())
    assert module.metrics["train/loss"] == pytest.approx(float(nn.CrossEntropyLoss(WEIGHT)(own(x), y)), rel=1e-5)


def test_mixed_weights_are_those_of_both_samples():
    """The loss of mixed targets is the mix of both weighted losses, exactly."""
    x, y = data("plain")
    seen = []

    class Look(Plugin):
        stage, group, option = Stage.DIAGNOSTICS, "test", "look"

        def penalty(self, module, batch, outputs):
            seen.append((batch, outputs[""].detach()))

    module = train("plain", x, y, 1, [Heavy(), Mixup(1.0), Look()], steps=1)
    batch, output = seen[0]
    twin = train("plain", x, y, 1, [Mixup(1.0), Look()], steps=1)
    shares = seen[1][0].targets[""]  # the same draws without weights: λ at one label, 1 − λ at the other
    assert torch.equal(seen[1][0].x, batch.x) and twin.steps_done == 1
    losses = -(batch.weight[""][:, None] * batch.targets[""] * output.log_softmax(1)).sum(1)
    # who was mixed with whom is told by the inputs: x̃ = λ x + (1 − λ) x′
    generator = torch.Generator().manual_seed(module.draws.generator("mixup", torch.device("cpu")).initial_seed())
    assert generator is not None and (batch.targets[""].sum(1) - 1).abs().max() < 1e-6
    weights = heavy(x)
    for index in range(SAMPLES):
        found = [
            (share, other)
            for other in range(SAMPLES)
            for share in [
                ((batch.x[index] - x[other]) @ (x[index] - x[other]) / ((x[index] - x[other]) ** 2).sum().clamp(min=1e-9))
            ]
            if torch.allclose(share * x[index] + (1 - share) * x[other], batch.x[index], atol=1e-5)
        ]
        share, other = found[0]
        log = output[index].log_softmax(0)
        expected = -share * weights[index] * log[y[index]] - (1 - share) * weights[other] * log[y[other]]
        torch.testing.assert_close(losses[index], expected, rtol=1e-4, atol=1e-4)
    assert shares.shape == batch.targets[""].shape


# ------------------------------------------------------------------ several tasks


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.body, self.heads = nn.Linear(4, 5), nn.ModuleDict({"a": nn.Linear(5, 3), "b": nn.Linear(5, 3)})

    def forward(self, x):
        return {name: head(self.body(x)) for name, head in self.heads.items()}


class Pairs(torch.utils.data.Dataset):
    def __init__(self, x, a, b):
        self.x, self.a, self.b = x, a, b

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], {"a": self.a[index], "b": self.b[index]}


@pytest.mark.parametrize("plugins", [(), (EqualWeights(),)], ids=names_of)
@pytest.mark.parametrize("parts", [1, 3])
def test_each_task_is_divided_by_its_own(parts, plugins):
    import lightning as L

    x, a = data("plain")
    b = torch.randint(3, (SAMPLES,), generator=torch.Generator().manual_seed(3))
    a = a.masked_fill(torch.arange(SAMPLES) % 4 == 0, -100)
    b = b.masked_fill(torch.arange(SAMPLES) < 9, -100)
    loss, own, twin = nn.CrossEntropyLoss(WEIGHT), Two(), Two()
    module = RecipeModule(own, loss, optimizer, parts=parts)
    trainer = L.Trainer(
        max_steps=STEPS, accelerator="cpu", callbacks=list(plugins), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    pairs = Pairs(x, a, b)
    trainer.fit(module, torch.utils.data.DataLoader(pairs, SAMPLES), torch.utils.data.DataLoader(pairs, 7))
    steps = optimizer(twin.parameters())
    for _ in range(STEPS):
        steps.zero_grad()
        outputs = twin(x)
        (loss(outputs["a"], a) + loss(outputs["b"], b)).backward()
        steps.step()
    torch.testing.assert_close(flat(own), flat(twin), **EQUAL)
    with torch.no_grad():
        outputs = twin(x)
    of = {"a": float(loss(outputs["a"], a)), "b": float(loss(outputs["b"], b))}
    right = {name: float((outputs[name].argmax(1) == y)[y >= 0].float().mean()) for name, y in (("a", a), ("b", b))}
    assert module.metrics["val/loss"] == pytest.approx(sum(of.values()), rel=1e-5)
    assert module.metrics["val/acc"] == pytest.approx(sum(right.values()) / 2, rel=1e-5)
    for name in of:
        assert module.metrics[f"val/{name}/loss"] == pytest.approx(of[name], rel=1e-5)
        assert module.metrics[f"val/{name}/acc"] == pytest.approx(right[name], rel=1e-5)
    assert json.dumps(module.recorder.state_dict())


# ------------------------------------------------------------------ what is found, and what is not


class Focal(nn.Module):
    """With torch's `reduction`, which it does not follow: its own weights divide."""

    def __init__(self):
        super().__init__()
        self.reduction = "mean"

    def forward(self, output, target):
        values = functional.cross_entropy(output, target, reduction="none")
        hard = 1 - (-values).exp()
        return values if self.reduction == "none" else (hard * values).sum() / hard.sum()


class Contrasting(nn.CrossEntropyLoss):
    def forward(self, output, target):
        return super().forward(output - output.mean(0), target)


@pytest.mark.parametrize(
    "loss",
    [Focal(), Contrasting(), lambda output, target: functional.cross_entropy(output, target)],
    ids=["focal", "contrasting", "plain"],
)
def test_what_does_not_hold_is_a_number_of_a_batch(loss):
    assert per_sample(loss, TASK) is None


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (nn.CrossEntropyLoss(), -100),
        (nn.CrossEntropyLoss(torch.rand(7), ignore_index=4), 4),
        (nn.NLLLoss(ignore_index=255), 255),
        (partial(functional.cross_entropy, ignore_index=9), 9),
        (hard_ones, None),
        (nn.MSELoss(), None),
        (LOSSES["by_task"], None),
    ],
)
def test_the_label_that_is_left_out_is_known(loss, label):
    assert ignored_label(loss) == label


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_of_any_kind_and_moved_ones(kind):
    loss = nn.CrossEntropyLoss(WEIGHT)
    wrapped = TaskLoss(loss, TASK)
    loss.to(kind)
    output, target = torch.randn(9, 3).to(kind), torch.randint(3, (9,))
    expected = functional.cross_entropy(output.double(), target, WEIGHT.to(kind).double())
    found = wrapped(output, target, torch.ones(9))
    torch.testing.assert_close(found.double(), expected, rtol=2e-2 if kind == torch.bfloat16 else 1e-5, atol=1e-5)


def test_a_number_of_a_batch_cannot_be_weighted():
    x, y = data("plain")
    with pytest.raises(RecipeError, match="one number for all samples.*let it return one value a sample") as told:
        train("plain", x, y, 1, [Heavy()], loss=lambda output, target: functional.cross_entropy(output, target))
    assert "\n" not in str(told.value)


def test_a_sum_is_told_once(caplog):
    x, y = data("sum")
    train("sum", x, y, 2)
    assert [record.message for record in caplog.records if "is a sum over samples" in record.message] != []


@pytest.mark.parametrize("name", ["weights", "ignore_index", "bce"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions(name, precision):
    x, y = data(name)
    module = train(name, x, y, 4, [Heavy()], precision=precision)
    rough = {"rtol": 1e-6, "atol": 1e-6} if precision == "64-true" else {"rtol": 0.05, "atol": 0.02}
    torch.testing.assert_close(numbers(module).float(), flat(by_hand(name, x, y, heavy(x))), **rough)


def test_autocast_does_not_round_what_divides():
    loss, target = per_sample(nn.CrossEntropyLoss(torch.tensor([1.0, 0.3, 2.7])), TASK), torch.randn(20, 3).softmax(1)
    assert loss.divides
    with torch.autocast("cpu", torch.bfloat16):
        found = loss.divisors(target)
    assert found.dtype == torch.float32 and torch.equal(found, loss.divisors(target))


def test_all_kinds_are_asked():
    assert {type(loss).__name__ for loss in NUMBERS.values()} >= {"MSELoss", "BCEWithLogitsLoss", "KLDivLoss"}


# ------------------------------------------------------------------ from the command line


@pytest.mark.parametrize("label", [-100, 255, 5000])
def test_the_data_know_the_label_that_the_loss_ignores(tmp_path, label):
    y = np.arange(60) % 3
    y[::4] = label
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(60, 4)), y=y)
    config = {"data": {"_target_": "recipes.data.npz.NpzData", "path": str(tmp_path / "data.npz")}}
    if label != 255:  # which may be a class where nobody says that it is none
        with pytest.raises(RecipeError, match="out of range"):
            build_data(config).setup()
    loss = {"_target_": "torch.nn.CrossEntropyLoss", "ignore_index": label}
    found = build_data({**config, "loss": loss})
    found.setup()
    assert found.tasks[0].outputs == 3 and found.setting(0).may_ignore


def test_what_holds_no_such_label_costs_nothing(tmp_path):
    x, y = data("plain")
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    node = {"_target_": "recipes.data.npz.NpzData", "path": str(tmp_path / "data.npz")}
    found = build_data({"data": node, "loss": {"_target_": "torch.nn.CrossEntropyLoss"}})
    found.setup()
    assert found.ignored == -100 and not found.setting(0).may_ignore
    assert TaskLoss(nn.CrossEntropyLoss(), TASK, may_ignore=False).ignored is None


def test_a_split_without_a_label_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((40, 4)), y=np.full(40, -100))
    node = {"_target_": "recipes.data.npz.NpzData", "path": str(tmp_path / "data.npz")}
    found = build_data({"data": node, "loss": {"_target_": "torch.nn.CrossEntropyLoss"}})
    with pytest.raises(RecipeError, match="all 40 training labels are -100, which the loss ignores"):
        found.setup()
