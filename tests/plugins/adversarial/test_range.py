"""Which values an adversarial example may take: given, or told by the data, or the run is refused; never further than eps."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.adversarial._ascent import BLOCK, clip, fgsm, pgd, random_starts
from plugins.adversarial.fgsm import FGSM
from plugins.adversarial.pgd import PGD
from plugins.base import Batch, Plugin, RecipeError, Refusal, Setting, Stage, Task
from recipes.data.loaders import EvaluationLoader
from recipes.data.split import Split
from recipes.engine.module import RecipeModule
from tests.plugins.adversarial.conftest import Net

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
ENDS = [((end - MEAN) / STD).flatten().tolist() for end in (0, 1)]  # of ImageNet's normalized images


def setting(x):
    return Setting(tuple(x.shape[1:]), (Task("", "classification", 5),), 0, lambda: iter(x.split(16)))


def module_of(plugin, x, given=None):
    module = RecipeModule(nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 5)), nn.functional.cross_entropy, torch.optim.SGD)
    module.build([plugin], given or setting(x), devices=1)
    return module


def attacked(plugin, x, **given):
    y = torch.randint(5, (len(x),))
    return plugin.transform_batch(Batch(x, {"": y}, {"": y}), module_of(plugin, x, **given)).x


def normalized(samples=40):
    return (torch.rand(samples, 3, 8, 8) - MEAN) / STD


SPECTROGRAMS = torch.rand(40, 1, 8, 8) * 80 - 80  # decibels


@pytest.mark.parametrize("kind", [FGSM, PGD])
@pytest.mark.parametrize("x", [normalized(), SPECTROGRAMS, torch.rand(40, 1, 8, 8) * 255, torch.rand(40, 3, 8, 8) - 0.5])
def test_images_in_other_units_are_refused_before_the_first_batch(kind, x):
    with pytest.raises(
        Refusal, match=r"inputs reach from .* type adversarial.range=\[lo,hi\].*\[null,null\] for no limit"
    ) as refused:
        module_of(kind(eps=0.03), x)
    assert "\n" not in str(refused.value) and f"{float(x.min()):.4g} to {float(x.max()):.4g}" in str(refused.value)
    module_of(kind(eps=0.0), x)  # an attack of no strength needs no range


@pytest.mark.parametrize("kind", [FGSM, PGD])
@pytest.mark.parametrize(
    ("x", "ends"),
    [
        (torch.rand(40, 3, 8, 8), None),  # images in [0, 1]
        (torch.rand(40, 12) * 9, None),  # tables, series: no limit
        (torch.randn(40, 4, 16), None),
        (normalized(), ENDS),
        (normalized(), [-2.2, ENDS[1]]),
        (SPECTROGRAMS, [-80, 0]),
        (normalized(), [-torch.inf, torch.inf]),
        (normalized(), [None, None]),
        (SPECTROGRAMS, [-80.0, None]),
    ],
)
def test_the_range_that_is_given_or_told_by_the_data(kind, x, ends):
    eps = 0.5
    out = attacked(kind(eps=eps, range=ends), x)
    assert 0 < (out - x).abs().max() <= eps * (1 + 1e-5)
    low, high = ends or ((0.0, 1.0) if x.ndim == 4 else (None, None))
    low, high = -torch.inf if low is None else low, torch.inf if high is None else high
    low, high = (torch.tensor(end).view(-1, *[1] * (x.ndim - 2)) for end in (low, high))
    assert (out >= torch.minimum(x, low)).all() and (out <= torch.maximum(x, high)).all()
    limited = (x - eps < low) | (x + eps > high)
    if low.isfinite().all():
        assert limited.any() and ((out == low) | (out == high)).any()  # and it reaches both the border
    else:
        assert not limited.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_sample_moves_by_more_than_eps_whatever_the_range(norm):
    x, up = torch.randn(40, 3, 8, 8) * 3, torch.randn(40, 3, 8, 8)
    bounds, loss = (torch.full((3, 1, 1), -0.5), 1.0), lambda x: (x * up).sum()
    for out in (fgsm(x, loss, 0.03, norm, bounds), pgd(x, loss, 0.03, 0.01, 5, norm, bounds)):
        moved = (out - x).abs().amax() if norm == "linf" else (out - x).flatten(1).norm(dim=1).max()
        assert 0 < moved <= 0.03 + 1e-6
    expected = torch.where(x < -0.5, torch.maximum(x + up, x), x + up).clamp(x.clamp(max=-0.5), x.clamp(min=1.0))
    torch.testing.assert_close(clip(x + up, x, bounds), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0], "range must be"),
        ([1, 0], "lo < hi"),
        ("all", "range must be"),
        ([0, [1, 2], 3], "range must be"),
        ([[0, 0], [1, 1, 1]], "range must be"),
        ([[], []], "range must be"),
        ([True, 2], "range must be"),
        ([[None, 0], [1, 2]], "range must be"),
        ([float("nan"), 1], "range must be"),
    ],
)
def test_refuses_what_is_no_range(given, message):
    with pytest.raises(RecipeError, match=message):
        PGD(range=given)


def test_refuses_a_range_for_other_channels():
    with pytest.raises(Refusal, match=r"has 2 numbers for an end, one a channel, and a sample has the shape \(3, 8, 8\)"):
        module_of(PGD(range=[[0, 0], [1, 1]]), normalized())


class Normalize(Plugin):
    """A technique of one's own that leaves the range before the attack."""

    stage = Stage.COLOUR

    def transform_batch(self, batch, module):
        """Other units."""
        batch.x = (batch.x - 0.5) * 4
        return batch


@pytest.mark.parametrize("given", [None, [0, 1]])
def test_inputs_that_a_technique_put_into_other_units_are_refused(lab, given):
    with pytest.raises(RecipeError, match=r"inputs of train that it gets reach from -2 to 2, outside of the range \[0,1\]"):
        lab.fit(FGSM(eps=0.1, range=given), Normalize())
    lab.fit(FGSM(eps=0.1, range=[-2, 2], eval_samples=0), Normalize())


def test_a_test_on_inputs_in_other_units_is_refused(lab):
    module, trainer = lab.fit(FGSM(eps=0.1))
    other = DataLoader(TensorDataset(lab.x * 255, lab.y), batch_size=16)
    with pytest.raises(RecipeError, match=r"inputs of test that it gets reach from 0 to 255, outside of the range \[0,1\]"):
        trainer.test(module, other, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(module, lab.loader(), verbose=False)


def test_a_finished_run_takes_the_range_of_what_it_is_evaluated_on(lab):
    loaded = Setting((1, 8, 8), lab.setting.tasks)  # which knows no training inputs
    for x, refused in ((lab.x, False), (lab.x * 3, True)):
        plugin, batch = PGD(eps=0.1), Batch(x, {"": lab.y}, {"": lab.y}, positions=range(len(x)))
        module = module_of(plugin, x, given=loaded)
        if refused:
            with pytest.raises(Refusal, match="adversarial/pgd: the inputs reach from 0 to 3"):
                plugin.measure(module, batch, {}, "test")
        else:
            assert plugin.ruler("acc_pgd")["range"] is None
            plugin.measure(module, batch, {}, "test")
            assert plugin.ruler("acc_pgd")["range"] == [0.0, 1.0]


def test_tokens_are_refused():
    x, y = torch.randint(9, (8, 4)), torch.randint(5, (8,))
    model = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 5))
    module = RecipeModule(model, nn.functional.cross_entropy, torch.optim.SGD)
    plugin = FGSM(eps=0.1)
    module.build([plugin], setting(x), devices=1)
    with pytest.raises(RecipeError, match="adversarial/fgsm: the inputs are whole numbers, such as tokens"):
        plugin.transform_batch(Batch(x, {"": y}, {"": y}), module)


def test_evaluations_may_have_an_eps_of_their_own(lab):
    plain, attacker = FGSM(eps=0.0, eval_eps=0.2), FGSM(eps=0.1, eval_eps=0.2)
    assert plain.ruler("acc_pgd") == attacker.ruler("acc_pgd") and FGSM(eps=0.1).ruler("acc_pgd") != plain.ruler("acc_pgd")
    module, trainer = lab.fit(plain)
    untouched, _ = lab.fit()
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), untouched.state_dict().values(), strict=True))
    assert trainer.callback_metrics["val/acc_pgd"] <= trainer.callback_metrics["val/acc"] and plain.monitor is None
    assert module.rulers["acc_pgd"] == plain.ruler("acc_pgd")
    with pytest.raises(RecipeError, match="eval_eps must be a number ≥ 0"):
        FGSM(eval_eps=-1)


# Robust accuracy belongs to the model, not to the devices


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_start_is_a_function_of_the_place_alone(norm):
    x, seed = torch.rand(3 * BLOCK + 7, 2, 3), int(torch.randint(2**40, ()))
    whole = random_starts(x, 0.3, norm, range(len(x)), seed)
    assert whole.shape == x.shape and len(whole.flatten(1).unique(dim=0)) == len(x)
    size = whole.abs().amax() if norm == "linf" else whole.flatten(1).norm(dim=1).max()
    assert 0.2 < size <= 0.3 * (1 + 1e-6)
    pieces = (
        range(5),
        range(BLOCK - 1, BLOCK + 1),
        range(BLOCK, 3 * BLOCK),
        range(1, len(x), 2),
        range(3 * BLOCK, len(x)),
        range(9, 9),
    )
    for piece in pieces:
        assert torch.equal(random_starts(x[list(piece)], 0.3, norm, piece, seed), whole[list(piece)])
    assert not torch.equal(random_starts(x, 0.3, norm, range(len(x)), seed + 1), whole)


@pytest.mark.parametrize("kind", [FGSM, PGD])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_robust_accuracy_is_that_of_one_device(lab, kind, world, monkeypatch):
    plugin = kind(eps=0.05, eval_samples=31)
    module = RecipeModule(Net().eval(), nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1))
    module.build([plugin], lab.setting, devices=1)

    def hits(rank, world):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
        found = {}
        loader = EvaluationLoader(Split(lab.x, {"": lab.y}), batch_size=10)
        for number, (x, targets) in enumerate(loader):
            batch = Batch(x, targets, targets, positions=loader.positions(number))
            assert torch.equal(x, lab.x[list(batch.positions)])
            measured = plugin.measure(module, batch, {}, "test")
            for name, values in measured.items():
                found.setdefault(name, []).extend(zip(batch.positions, values[0].tolist(), strict=False))
        return found

    alone = hits(0, 1)
    shared = [hits(rank, world) for rank in range(world)]
    for name, expected in alone.items():
        assert len(expected) == 31 and sorted(pair for found in shared for pair in found[name]) == expected


def test_samples_of_loaders_from_python_are_counted(lab):
    seen = []

    class Watch(Plugin):
        """Sees where the samples of an evaluation stand."""

        stage = Stage.DIAGNOSTICS

        def measure(self, module, batch, outputs, split):
            """Nothing."""
            seen.append(batch.positions)
            return {}

    lab.fit(Watch(), max_steps=6, limit_val_batches=2, num_sanity_val_steps=0)
    assert seen == [range(16), range(16, 32)] * 2


# Sixteen bits, and a model that standardizes


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [8 / 255, 0.1, 0.3])
def test_exactly_inside_the_ball_in_bfloat16(norm, eps):
    """In exact arithmetic: rounding to 16 bits leads out of no ball."""
    x, up = torch.rand(40, 3, 8, 8).bfloat16(), torch.randn(40, 3, 8, 8).bfloat16()
    bounds = (torch.full((3, 1, 1), 0.1), 0.9)
    for start in (None, torch.randn(40, 3, 8, 8).bfloat16()):
        for limits in (None, (bounds[0].bfloat16(), bounds[1])):
            out = pgd(x, lambda x: (x.float() * up.float()).sum(), eps, eps / 3, 5, norm, limits, start)
            moved = (out.double() - x.double()).flatten(1)
            assert out.dtype == torch.bfloat16
            length = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
            assert length.max() <= eps and length.min() > 0


def test_the_ball_is_in_the_raw_range_where_the_model_standardizes(lab):
    """Whatever stands in front of the model: x′ is within ε of x, and far outside of it in the units of the layers behind."""

    class Standardized(nn.Module):
        """A net behind a layer that standardizes."""

        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net((x - 0.5) / 0.01)

    plugin = PGD(eps=0.1, steps=3)
    out = plugin.transform_batch(lab.batch(), lab.module(plugin, net=Standardized())).x
    assert 0 < (out.double() - lab.x.double()).abs().max() <= 0.1 and out.min() >= 0 and out.max() <= 1
