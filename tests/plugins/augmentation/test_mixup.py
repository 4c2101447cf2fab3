import pytest
import torch
from scipy import stats

from plugins.augmentation._mixing import mix, symmetric_beta
from plugins.augmentation.cutmix import CutMix
from plugins.augmentation.mixup import Mixup
from plugins.base import Batch, Task
from plugins.regularizer.label_smoothing import LabelSmoothing


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 1.0, 2.0, 50.0])
def test_shares_are_distributed_as_scipy_says(alpha):
    generator = torch.Generator().manual_seed(torch.randint(2**40, ()).item())
    drawn = symmetric_beta(alpha, 20_000, torch.device("cpu"), generator).double()
    assert drawn.isfinite().all() and (drawn >= 0).all() and (drawn <= 1).all()
    # below 1e-6 float32 knows no numbers next to 1, so the test asks for no more than that
    cut = drawn.clamp(1e-6, 1 - 1e-6).numpy()
    reference = stats.beta(alpha, alpha)
    inner = (cut > 1e-6) & (cut < 1 - 1e-6)
    below, above = reference.cdf(1e-6), reference.cdf(1 - 1e-6)
    assert abs(inner.mean() - (above - below)) < 6 * (0.25 / 20_000) ** 0.5
    assert stats.kstest(cut[inner], lambda v: (reference.cdf(v) - below) / (above - below)).pvalue > 1e-6


def one_hot(labels, classes=5):
    return torch.eye(classes)[labels]


def partners_and_shares(x, out):
    """Which sample each was mixed with, and how much, found from the pixels alone."""
    flat, mixed = x.flatten(1).double(), out.flatten(1).double()
    found = []
    for own, result in zip(flat, mixed, strict=True):
        others = flat - own
        moved = result - own
        step = (others @ moved) / others.square().sum(1).clamp_min(1e-30)
        error = (step[:, None] * others - moved).square().sum(1)
        found.append((int(error.argmin()), 1 - float(step[error.argmin()])))
    return torch.tensor([partner for partner, _ in found]), torch.tensor([share for _, share in found])


def test_inputs_and_targets_are_mixed_alike(build, batch):
    plugin, given = Mixup(alpha=1.0), batch(32)
    before, labels = given.x.clone(), given.labels[""].clone()
    out = plugin.transform_batch(given, build(plugin))
    partner, share = partners_and_shares(before, out.x)
    unmoved = share == 1  # a sample that is its own partner
    assert sorted(partner[~unmoved].tolist()) == sorted(set(range(32)) - set(torch.arange(32)[unmoved].tolist()))
    assert len(share.unique()) > 20  # each sample has a share of its own
    weight = share[:, None].float()
    expected = weight * one_hot(labels) + (1 - weight) * one_hot(labels[partner])
    expected[unmoved] = one_hot(labels)[unmoved]
    torch.testing.assert_close(out.targets[""], expected, atol=1e-4, rtol=0)
    assert out.labels[""] is given.labels[""] and torch.equal(given.labels[""], labels)
    assert torch.equal(given.x, before) and torch.equal(given.targets[""], labels)


def test_where_the_share_is_one_or_zero_mixing_is_exact():
    first, second = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    out = mix(first, second, torch.tensor([1.0, 0.0, 0.25]))
    assert torch.equal(out[0], first[0]) and torch.equal(out[1], second[1])
    torch.testing.assert_close(out[2], 0.25 * first[2] + 0.75 * second[2])


def test_values_of_a_regression_are_mixed_as_they_are(build):
    plugin = Mixup(alpha=1.0)
    x = torch.randn(32, 6)
    truth = torch.randn(6, 1)
    targets = {"score": (x @ truth).squeeze(1), "pair": x @ truth.expand(6, 2), "kind": torch.randint(3, (32,))}
    tasks = [Task("score", "regression", 1), Task("pair", "regression", 2), Task("kind", "classification", 3)]
    out = plugin.transform_batch(Batch(x, dict(targets), dict(targets)), build(plugin, shape=(6,), tasks=tasks))
    torch.testing.assert_close(out.targets["score"], (out.x @ truth).squeeze(1))  # a linear target stays one
    torch.testing.assert_close(out.targets["pair"], out.x @ truth.expand(6, 2))
    assert not torch.equal(out.x, x)
    torch.testing.assert_close(out.targets["kind"].sum(1), torch.ones(32))


def run(module, given):
    for plugin in module.plugins:
        given = plugin.transform_batch(given, module)
    return given


def test_each_batch_gets_exactly_one_of_two(build, batch):
    given = batch(16)
    taken = []
    for seed in range(60):
        together = run(build(Mixup(1.0), CutMix(1.0), seed=seed), given)
        reverse = run(build(CutMix(1.0), Mixup(1.0), seed=seed), given)
        assert torch.equal(together.x, reverse.x) and torch.equal(together.targets[""], reverse.targets[""])
        alone = [run(build(plugin, seed=seed), given).x for plugin in (Mixup(1.0), CutMix(1.0))]
        same = [torch.equal(together.x, x) for x in alone]
        assert sum(same) == 1
        taken.append(same[0])
    assert 10 < sum(taken) < 50


def test_a_rival_of_strength_zero_has_no_batches(build, batch):
    given = batch(16)
    for seed in range(10):
        both, alone = build(Mixup(0.0), CutMix(1.0), seed=seed), build(CutMix(1.0), seed=seed)
        assert torch.equal(run(both, given).x, run(alone, given).x)


def test_label_smoothing_gives_the_same_in_either_order(build, batch):
    given = batch(16)
    first = run(build(Mixup(1.0), LabelSmoothing(0.1)), given)
    second = run(build(LabelSmoothing(0.1), Mixup(1.0)), given)
    assert torch.equal(first.x, second.x) and torch.equal(first.targets[""], second.targets[""])
    # mixing smoothed targets is smoothing mixed ones
    mixed = run(build(Mixup(1.0)), given)
    torch.testing.assert_close(first.targets[""], 0.9 * mixed.targets[""] + 0.1 * (1 - mixed.targets[""]) / 4)


def test_each_batch_is_mixed_where_two_take_turns(build, batch, monkeypatch):
    given = batch(16)
    for seed in range(8):
        for done, at in ((0, 0), (5, 1)):
            plugins = Mixup(1.0, when=[0.0, 0.5]), CutMix(1.0, when=[0.5, 1.0])
            module = build(*plugins, seed=seed)
            monkeypatch.setattr(type(module), "progress", (done, 10))
            assert [plugin.acts(module.progress) for plugin in plugins] == [at == 0, at == 1]
            assert not torch.equal(plugins[at].transform_batch(given, module).x, given.x)


def test_all_parts_and_ranks_of_a_step_agree_on_who_mixes(build, batch):
    plugin = Mixup(1.0)
    module, asked = build(plugin, CutMix(1.0)), []
    own = module.generator
    module.generator = lambda owner, device=None, same_on_ranks=False: (
        asked.append((owner, same_on_ranks)) or own(owner, device, same_on_ranks)
    )
    plugin.transform_batch(batch(8), module)
    assert asked[0] == ("mixing", True) and all(not same for _, same in asked[1:])
