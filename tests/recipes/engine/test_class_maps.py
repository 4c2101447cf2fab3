"""Targets with a class for each place of a sample: losses, metrics and techniques against the equations written out."""

import copy

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from plugins.augmentation.crop import RandomCrop
from plugins.augmentation.cutmix import CutMix
from plugins.augmentation.horizontal_flip import HorizontalFlip
from plugins.augmentation.mixup import Mixup
from plugins.augmentation.randaugment import RandAugment
from plugins.base import Plugin, RecipeError, Setting, Stage, Task
from plugins.inference.mc_dropout import MCDropout
from plugins.inference.temperature import Temperature
from plugins.loss.by_task import LossByTask
from plugins.loss.cross_entropy import CrossEntropy
from plugins.loss.mse import MSE
from plugins.metric.f1 import F1Score
from plugins.regularizer.class_weights import ClassWeights
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.label_smoothing import LabelSmoothing, smooth
from recipes.check.forms import IGNORED, maps
from recipes.engine.losses import TaskLoss
from recipes.engine.module import RecipeModule
from tests.forms import as_tensors

LABELS = Task("", "classification", 3, shape=(8, 8))
EQUAL = {"rtol": 1e-5, "atol": 1e-6}
LOSSES = {
    "ours": CrossEntropy(IGNORED),
    "torch's": nn.CrossEntropyLoss(ignore_index=IGNORED),
    "weights": nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 0.2]), ignore_index=IGNORED),
    "sum": nn.CrossEntropyLoss(ignore_index=IGNORED, reduction="sum"),
    "value a label": lambda output, target: functional.cross_entropy(output, target, reduction="none"),
}


class Keeps(Plugin):
    """Keeps the batch as it goes into the pass."""

    stage, group, option = Stage.ADVERSARIAL, "diagnostics", "keeps"
    on_class_maps = True

    def transform_batch(self, batch, module):
        self.batch, self.clean = batch, module.clean_batch
        return batch


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))


def fit(*plugins, loss=None, steps=3, ignored=True, model=None, parts=1, batch=16, seed=0, **options):
    x, y = as_tensors(maps(ignored=ignored))
    loader = DataLoader(TensorDataset(x, y), batch_size=batch)
    loss = loss or (CrossEntropy(IGNORED) if ignored else LossByTask())
    make = lambda groups: torch.optim.SGD(groups, 0.5)  # noqa: E731
    module = RecipeModule(model or net(), loss, make, parts=parts, seed=seed)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(plugins),
        **options,
    )
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    return module


def by_hand(loss, steps, batch=16):
    model, (x, y) = net(), as_tensors(maps())
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for inputs, labels in list(zip(x.split(batch), y.split(batch), strict=True))[:steps]:
        optimizer.zero_grad()
        loss(model(inputs), labels).backward()
        optimizer.step()
    return model


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("sum", "value a label")])
def test_a_step_is_that_of_the_mean_over_all_pixels_that_count(name, parts):
    whole = nn.CrossEntropyLoss(getattr(LOSSES[name], "weight", None), ignore_index=IGNORED)
    torch.testing.assert_close(weights(fit(loss=LOSSES[name], parts=parts).model), weights(by_hand(whole, 3)), **EQUAL)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_pixels_weighed_by_hand(name):
    loss, generator = LOSSES[name], torch.Generator().manual_seed(1)
    output, target = torch.randn(5, 3, 8, 8, generator=generator), torch.randint(3, (5, 8, 8), generator=generator)
    values = functional.cross_entropy(output, target, reduction="none")
    of_class = getattr(loss, "weight", None)
    divisors = torch.ones(5, 8, 8) if of_class is None else of_class[target]
    for weight in (None, torch.rand(5, generator=generator), torch.rand(5, 8, 8, generator=generator)):
        b = (
            torch.ones(5, 8, 8)
            if weight is None
            else weight.view(5, *weight.shape[1:], *[1] * (3 - weight.ndim)).expand(5, 8, 8)
        )
        expected = (b * divisors * values).sum() / (1 if name == "sum" else (b * divisors).sum())
        torch.testing.assert_close(TaskLoss(loss, LABELS)(output, target, weight), expected, **EQUAL)
        soft = smooth(target, 3, 0.0)
        if name != "value a label":
            torch.testing.assert_close(TaskLoss(loss, LABELS)(output, soft, weight), expected, **EQUAL)


def test_squared_errors_of_pixels():
    generator = torch.Generator().manual_seed(1)
    output, target = torch.randn(5, 3, 8, 8, generator=generator), torch.randint(3, (5, 8, 8), generator=generator)
    soft, b = smooth(target, 3, 0.2), torch.rand(5, 8, 8, generator=generator)
    for loss, targets in ((MSE(), (target, soft)),):
        for given in targets:
            each = (output - smooth(given, 3, 0.0)).square().mean(1)
            found = TaskLoss(loss, LABELS)
            torch.testing.assert_close(found._value(output, given, None, None), each.mean())
            torch.testing.assert_close(found._value(output, given, b, None), (b * each).sum() / b.sum())


def test_metrics_count_pixels():
    module, (x, y) = fit(F1Score()), as_tensors(maps())
    with torch.no_grad():
        outputs = module.model(x)
    known, predicted = y != IGNORED, outputs.argmax(1)
    assert module.metrics["test/acc"] == pytest.approx(float((predicted == y)[known].float().mean()))
    assert module.metrics["test/loss"] == pytest.approx(
        float(functional.cross_entropy(outputs, y, ignore_index=IGNORED)), rel=1e-5
    )
    table = torch.zeros(3, 3, dtype=torch.long)
    for true, guess in zip(y[known].tolist(), predicted[known].tolist(), strict=True):
        table[true, guess] += 1
    assert module.confusion[""] == table.tolist()
    of_each = 2 * table.diagonal() / (table.sum(0) + table.sum(1))
    assert module.metrics["test/f1"] == pytest.approx(float(of_each.mean()), rel=1e-5)


@pytest.mark.parametrize("ignored", [True, False])
def test_a_flip_moves_images_and_maps_by_one_draw(ignored):
    keeps = Keeps()
    fit(HorizontalFlip(p=0.5), keeps, steps=1, ignored=ignored)
    clean, moved, flipped = keeps.clean, keeps.batch, 0
    for i in range(len(moved)):
        turned = not torch.equal(clean.x[i], moved.x[i])
        flipped += turned
        for before, after in ((clean.x, moved.x), (clean.labels[""], moved.labels[""]), (clean.targets[""], moved.targets[""])):
            assert torch.equal(after[i], before[i].flip(-1) if turned else before[i])
        if ignored:
            assert torch.equal(moved.weight[""][i], (moved.labels[""][i] != IGNORED).float())
    assert 0 < flipped < len(moved)


@pytest.mark.parametrize("arguments", [{"padding": 2}, {"padding": 0, "size": 5}, {"padding": 1, "size": 6}])
def test_a_crop_cuts_images_and_maps_at_one_place(arguments):
    keeps = Keeps()
    module = fit(RandomCrop(**arguments), keeps, steps=1)
    clean, moved, padding, size = keeps.clean, keeps.batch, arguments["padding"], arguments.get("size") or 8
    x = functional.pad(clean.x, (padding,) * 4)
    y = functional.pad(clean.labels[""], (padding,) * 4, value=IGNORED)
    for i in range(len(moved)):
        places = [(r, c) for r in range(8 + 2 * padding - size + 1) for c in range(8 + 2 * padding - size + 1)]
        found = [(r, c) for r, c in places if torch.equal(x[i, :, r : r + size, c : c + size], moved.x[i])]
        assert any(torch.equal(y[i, r : r + size, c : c + size], moved.labels[""][i]) for r, c in found)
    kept = moved.labels[""] != IGNORED
    assert torch.equal(moved.targets[""][kept], moved.labels[""][kept])
    assert ((moved.targets[""] >= 0) & (moved.targets[""] < 3)).all()
    if "" in moved.weight:
        assert torch.equal(moved.weight[""], kept.float())
    assert 0 <= module.metrics["test/acc"] <= 1


def test_a_crop_that_pads_needs_a_label_that_is_ignored():
    with pytest.raises(RecipeError, match="pads class maps with the label that the loss ignores, .*loss.ignore_index"):
        fit(RandomCrop(padding=2), ignored=False)
    fit(RandomCrop(padding=0, size=6), ignored=False, steps=1)
    # no pixel of the data is ignored, those around it are
    module, keeps = RandomCrop(padding=3), Keeps()
    trained = fit(module, keeps, ignored=False, loss=CrossEntropy(IGNORED), steps=1)
    assert (keeps.batch.labels[""] == IGNORED).any() and (keeps.clean.labels[""] != IGNORED).all()
    seen = trained.recorder.train if trained.recorder.train.counts else None
    assert seen is None or float(seen.counts["acc"]) <= 16 * 64


@pytest.mark.parametrize("ignored", [True, False])
def test_cutmix_of_maps_is_exact(ignored):
    keeps = Keeps()
    fit(CutMix(alpha=1.0), keeps, steps=1, ignored=ignored)
    clean, mixed = keeps.clean, keeps.batch
    assert not mixed.targets[""].is_floating_point() and not torch.equal(clean.x, mixed.x)
    # a pixel's class can be read off its brightness, whichever image it is from
    from_image = (mixed.x[:, 0] * 255).round().long() // 86
    known = mixed.labels[""] != IGNORED
    assert torch.equal(mixed.labels[""][known], from_image[known])
    assert torch.equal(mixed.targets[""][known], from_image[known])
    if ignored:
        assert torch.equal(mixed.weight[""], known.float())


def test_mixup_of_maps_softens_each_pixel():
    keeps, plugin = Keeps(), Mixup(alpha=1.0)
    fit(plugin, keeps, steps=1)
    clean, mixed = keeps.clean, keeps.batch
    target, weight = mixed.targets[""], mixed.weight[""]
    assert target.shape == (16, 3, 8, 8) and weight.shape == (16, 8, 8)
    torch.testing.assert_close(target.sum(1), torch.ones(16, 8, 8))
    onehot, known = smooth(clean.targets[""], 3, 0.0), clean.weight[""]
    for i in range(16):
        fits = []
        for j in range(16):
            difference = clean.x[i] - clean.x[j]
            share = 1.0 if i == j else float(((mixed.x[i] - clean.x[j]) * difference).sum() / difference.square().sum())
            if torch.allclose(share * clean.x[i] + (1 - share) * clean.x[j], mixed.x[i], atol=1e-5):
                expected = share * known[i] * onehot[i] + (1 - share) * known[j] * onehot[j]
                fits.append(torch.allclose(weight[i] * target[i], expected, atol=1e-4))
        assert any(fits)


def test_label_smoothing_and_class_weights_act_on_pixels():
    keeps = Keeps()
    fit(LabelSmoothing(0.3), ClassWeights([1.0, 2.0, 4.0]), keeps, steps=1)
    labels, known = keeps.clean.labels[""], keeps.clean.labels[""] != IGNORED
    of_label = keeps.batch.targets[""].gather(1, labels.where(known, 0).unsqueeze(1)).squeeze(1)
    assert torch.allclose(of_label, torch.tensor(0.7)) and keeps.batch.targets[""].shape == (16, 3, 8, 8)
    share = torch.tensor([1.0, 2.0, 4.0])[labels.where(known, 0)]
    smoothed = 0.55 * share + 0.15 * 7  # a smoothed pixel has the weights of its classes
    weight = keeps.batch.weight[""]
    assert torch.allclose(weight, share * known) or torch.allclose(weight, smoothed * known)


def test_probabilities_of_pixels():
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    module = fit(Dropout(0.3), MCDropout(samples=3), model=model)
    assert 0 < module.metrics["test/entropy"] < 1.1
    module = fit(Temperature(), steps=20)
    x, y = as_tensors(maps())
    with torch.no_grad():
        z = module.model(x).movedim(1, -1)[y != IGNORED]
    y = y[y != IGNORED]
    grid = torch.logspace(-2, 2, 4001)
    best = grid[torch.stack([functional.cross_entropy(z / T, y) for T in grid]).argmin()]
    T = float(module.calibrated.of(next(plugin for plugin in module.plugins if isinstance(plugin, Temperature)).state_key)["T"])
    assert pytest.approx(float(best), rel=0.01) == T


def test_what_is_not_made_for_maps_is_refused_in_one_line():
    for plugin in (RandAugment(),):
        with pytest.raises(RecipeError, match="one label a sample, and these have a class for each place") as refused:
            fit(plugin)
        assert "\n" not in str(refused.value)
    other = Setting((1, 8, 8), (Task("", "classification", 3, shape=(4, 4)),))
    module = RecipeModule(net(), CrossEntropy(IGNORED), lambda groups: torch.optim.SGD(groups, 0.1))
    with pytest.raises(RecipeError, match=r"moves labels as it moves pixels, and target y has places \(4, 4\)"):
        module.build([HorizontalFlip(p=0.5)], other, devices=1)


def test_a_scalar_loss_of_maps_is_asked_whether_it_is_a_mean():
    def dice(output, target):
        p, q = output.softmax(1), functional.one_hot(target, 3).movedim(-1, 1).float()
        return 1 - (2 * (p * q).sum((0, 2, 3)) / (p + q).sum((0, 2, 3))).mean()

    with pytest.raises(RecipeError, match="dice is no mean over samples"):
        fit(loss=dice, parts=2, ignored=False)
    before = copy.deepcopy(net())
    assert not torch.equal(weights(before), weights(fit(loss=dice, ignored=False).model))


class Weighs(Plugin):
    """Weights of samples by their first number."""

    stage, group, option = Stage.TARGETS, "test", "weighs"
    on_class_maps = True

    def transform_batch(self, batch, module):
        batch.weight = batch.weighted("", 0.5 + batch.x.flatten(1)[:, 0].abs())
        return batch


def test_the_first_step_of_an_own_loss_with_a_value_a_label_divides_by_labels():
    given = {"loss": LOSSES["value a label"], "steps": 1, "ignored": False, "num_sanity_val_steps": 0}
    whole, cut = (fit(Weighs(), parts=parts, **given) for parts in (1, 2))
    torch.testing.assert_close(weights(cut.model), weights(whole.model), **EQUAL)
    (x, y), model = (values[:16] for values in as_tensors(maps(ignored=False))), net()
    each = (0.5 + x.flatten(1)[:, 0].abs())[:, None, None].expand(y.shape)
    ((functional.cross_entropy(model(x), y, reduction="none") * each).sum() / each.sum()).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * parameter.grad
    torch.testing.assert_close(weights(cut.model), weights(model), **EQUAL)
