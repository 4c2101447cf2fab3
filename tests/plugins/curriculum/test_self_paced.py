import math
from fractions import Fraction

import pytest
import torch
from torch.nn import functional

from plugins.adversarial.fgsm import FGSM
from plugins.augmentation.mixup import Mixup
from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.curriculum.self_paced import SelfPaced, first_threshold, grown, is_easy
from tests.harness import config_of, fit, parameters, same_bits
from tests.plugins.curriculum.numbered import EPOCH, SAMPLES, Seen, net, problem, self_paced_on_a_rank, sgd, trained
from tests.ranks import on_ranks


def test_the_first_threshold_lets_a_share_count():
    losses = torch.rand(30)
    for share in (0.01, 0.5, 0.77, 0.99):
        assert int((losses < first_threshold(losses, share)).sum()) == math.ceil(share * 30)
    assert first_threshold(losses, 0.99) == torch.inf and first_threshold(losses[:1], 0.5) == torch.inf


def test_as_many_count_as_the_exact_share_asks_for():
    for hundredths in range(1, 100):
        counted = int((torch.arange(100.0) < first_threshold(torch.arange(100.0), hundredths / 100)).sum())
        assert counted == math.ceil(Fraction(hundredths, 100) * 100)


def test_where_most_losses_are_0_learning_goes_on():
    """Of 8 samples 6 have no loss; of the others one counts first, then both."""
    plugin, losses = SelfPaced(0.5, 2.0), torch.tensor([0.0] * 6 + [0.5, 0.7])
    plugin.load_state_dict({**plugin.state_dict(), "losses": losses, "of_epoch": losses, "epoch": 0})
    plugin._samples = 8
    plugin._begin(1)
    assert plugin._threshold == torch.tensor(0.7)
    assert is_easy(plugin.losses_before(1, 8), plugin._threshold).tolist() == [True] * 7 + [False]


def test_the_threshold_has_no_end():
    assert grown(1.3, 4) == 1.3**4 and grown(1.3, 100_000) == math.inf
    assert is_easy(torch.rand(5), torch.rand(()) * grown(10.0, 1000)).all()


def test_easy_is_what_lies_below_and_what_is_not_known():
    losses = torch.tensor([0.1, 0.5, 0.7, torch.inf])
    assert is_easy(losses, torch.tensor(0.5)).tolist() == [True, False, False, True]


@pytest.mark.parametrize(("parts", "weighted"), [(1, False), (2, True)])
def test_equals_the_algorithm_by_hand(tmp_path, parts, weighted):
    """v = 1[l < λ] and w in turn, an epoch each; λ ← μ λ (Kumar et al., algorithm 1)."""
    steps, share, growth, seen = 4 * EPOCH + 2, 0.4, 1.2, Seen()
    module = trained(tmp_path, steps, SelfPaced(share, growth), seen, parts=parts, weighted=weighted)
    (x, y, weight), model = problem(), net()
    optimizer, weight = sgd(model.parameters()), weight if weighted else torch.ones(SAMPLES)
    losses, v, threshold, counted = torch.empty(SAMPLES), torch.ones(SAMPLES), None, []
    for step in range(steps):
        if step and step % EPOCH == 0:
            threshold = losses.sort().values[math.ceil(share * SAMPLES)] if threshold is None else threshold * growth
            v = (losses < threshold).float()
            counted.append(int(v.sum()))
        taken = torch.cat([numbers for numbers, _ in seen.passes[step * parts : (step + 1) * parts]])
        values = functional.cross_entropy(model(x[taken]), y[taken], reduction="none")
        optimizer.zero_grad()
        counts = (v * weight)[taken]
        ((counts * values).sum() / counts.sum().clamp(min=1e-30)).backward()
        optimizer.step()
        losses[taken] = values.detach()
    assert counted[0] == 20 and all(0 < count < SAMPLES for count in counted)
    torch.testing.assert_close(module.model.weight, model.weight, rtol=1e-4, atol=1e-6)


def test_what_does_not_count_is_attacked_as_well(tmp_path):
    """Losses that are compared are of samples that are all as hard as they are made."""
    seen, x = Seen(), problem()[0]
    trained(tmp_path, 3 * EPOCH, SelfPaced(0.4, 1.0), FGSM(0.1, range=[None, None]), seen)
    assert len(seen.passes) == 3 * EPOCH
    for samples, had in seen.passes:
        torch.testing.assert_close((had - x[samples]).abs(), torch.full_like(had, 0.1), rtol=0, atol=1e-5)


def test_two_processes_decide_as_one_in_two_parts(tmp_path):
    plugin, steps = SelfPaced(0.4, 1.2), 2 * EPOCH + 3
    module = trained(tmp_path, steps, plugin, parts=2, weighted=True)
    expected = plugin.state_dict()
    for weight, state in on_ranks(2, self_paced_on_a_rank, str(tmp_path), steps):
        torch.testing.assert_close(weight, module.model.weight.detach())
        assert all(torch.allclose(state[name], expected[name], rtol=1e-4) for name in ("losses", "of_epoch", "threshold"))


@pytest.mark.parametrize("at", [7, 13])
def test_goes_on_bit_for_bit(tmp_path, at):
    config = config_of(["curriculum/self_paced"], "data.batch_size=256")
    whole = fit(config, tmp_path / "whole", 16, copy_at=at)  # 5 steps make an epoch
    assert whole.trainer.num_training_batches == 5
    resumed = fit(config, tmp_path / "resumed", 16, resume=tmp_path / "whole" / "copy.ckpt")
    assert not same_bits(parameters(whole), parameters(resumed))


def test_refuses_mixed_samples_and_what_is_out_of_range():
    setting = Setting((4,), (Task("", "classification", 3),))
    with pytest.raises(Refusal, match="looks at the loss of each sample, and augmentation/mixup trains on mixtures of several"):
        SelfPaced().check(Selection([Mixup()], setting))
    with pytest.raises(RecipeError, match="^growth must be a number ≥ 1"):
        SelfPaced(growth=0.9)
