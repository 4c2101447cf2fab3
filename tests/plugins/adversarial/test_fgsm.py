import copy
import csv
import json
import os
import re
import warnings

import pytest
import torch
from torch import nn

from plugins.adversarial._ascent import fgsm
from plugins.adversarial.fgsm import FGSM
from plugins.augmentation.mixup import Mixup
from plugins.base import Batch, Refusal, Setting, Task
from plugins.loss.bce import BinaryCrossEntropy
from recipes.engine.module import RecipeModule
from tests.command import command
from tests.plugins.adversarial.slope import gradient_of, loss_of


def test_the_equation(lab):
    net, eps = lab.net.eval(), 0.1
    gradient = gradient_of(copy.deepcopy(net), lab.x, lab.y)
    expected = (lab.x + eps * gradient.sign()).clamp(0, 1)
    assert torch.equal(fgsm(lab.x, loss_of(net, lab.y), eps, "linf", (0.0, 1.0)), expected)
    free = fgsm(lab.x, loss_of(net, lab.y), eps, "l2")
    for x, result, slope in zip(lab.x, free, gradient, strict=True):
        torch.testing.assert_close(result, x + eps * slope / slope.square().sum().sqrt())


def test_equals_torchattacks(lab):
    torchattacks = pytest.importorskip("torchattacks")
    net = lab.net.eval()
    expected = torchattacks.FGSM(net, eps=0.1)(lab.x, lab.y)
    assert torch.equal(fgsm(lab.x, loss_of(net, lab.y), 0.1, "linf", (0.0, 1.0)), expected)


def test_l2_step_keeps_its_length_where_the_gradient_nearly_vanishes():
    x = torch.rand(3, 1, 8, 8)
    scale = torch.tensor([1.0, 1e-30, 0.0]).view(3, 1, 1, 1)
    out = fgsm(x, lambda x: (x * scale).sum(), 0.5, "l2")
    lengths = (out - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([0.5, 0.5, 0.0]), atol=1e-5, rtol=0)


def test_crafting_leaves_no_trace(lab):
    """Gradients, statistics, modes, the global random state and the batch are as before, with and without eval_mode."""
    for eval_mode in (True, False):
        plugin = FGSM(eps=0.1, eval_mode=eval_mode)
        net = lab.copy().train()
        net[1].eval()  # a batch norm that someone froze
        module = lab.module(plugin, net=net)
        module.objective(module.outputs(lab.x), {"": lab.y}).backward()
        kept = [parameter.grad.clone() for parameter in net.parameters()]
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        given, state = lab.batch(), torch.get_rng_state()
        out = plugin.transform_batch(given, module)
        assert not torch.equal(out.x, given.x) and not out.x.requires_grad
        assert torch.equal(given.x, lab.x)
        assert all(torch.equal(parameter.grad, before) for parameter, before in zip(net.parameters(), kept, strict=True))
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in net.named_buffers())
        assert [part.training for part in net] == [True, False, True, True, True, True] and net.training
        assert torch.equal(torch.get_rng_state(), state)


def test_eval_mode_says_which_statistics_an_attack_sees(lab):
    with torch.no_grad():
        lab.net(lab.x * 3 - 1)  # running statistics far from those of the batch
    lab.net[4].p = 0.0
    for eval_mode in (True, False):
        plugin = FGSM(eps=0.1, eval_mode=eval_mode)
        out = plugin.transform_batch(lab.batch(), lab.module(plugin)).x
        net = lab.copy().train(not eval_mode)
        net[4].p = 0.0
        expected = (lab.x + 0.1 * gradient_of(net, lab.x, lab.y).sign()).clamp(0, 1)
        moved = plugin.transform_batch(lab.batch(), lab.module(plugin, net=copy.deepcopy(net))).x
        assert torch.equal(moved, expected)
        if eval_mode:
            assert torch.equal(out, expected)


def test_predicted_label(lab):
    plugin = FGSM(eps=0.1, label="predicted")
    out = plugin.transform_batch(lab.batch(), lab.module(plugin)).x
    net = lab.copy().eval()
    gradient = gradient_of(net, lab.x, net(lab.x).argmax(1))
    assert torch.equal(out, (lab.x + 0.1 * gradient.sign()).clamp(0, 1))


def test_predicted_labels_of_several_a_sample():
    plugin = FGSM(eps=0.1, label="predicted")
    module = RecipeModule(nn.Linear(6, 4), BinaryCrossEntropy(threshold=0.6), torch.optim.SGD)
    module.build([plugin], Setting((6,), (Task("", "multilabel", 4),)), devices=1)
    x, y = torch.randn(20, 6), torch.rand(20, 4) < 0.5
    out = plugin.transform_batch(Batch(x, {"": y}, {"": y}), module).x
    z = module.model(x)
    slope = (z.sigmoid() - (z.sigmoid() >= 0.6).float()) @ module.model.weight
    torch.testing.assert_close(out, x + 0.1 * slope.sign())


def test_mixed_targets_are_attacked_as_they_are(lab):
    plugins = [FGSM(eps=0.1), Mixup(alpha=1.0)]
    module = lab.module(*plugins)
    mixed = plugins[1].transform_batch(lab.batch(), module)
    out = plugins[0].transform_batch(mixed, module)
    expected = (mixed.x + 0.1 * gradient_of(lab.copy().eval(), mixed.x, mixed.targets[""]).sign()).clamp(0, 1)
    assert torch.equal(out.x, expected)


@pytest.mark.parametrize("clean", [0.0, 0.25, 0.5, 1.0])
def test_a_share_stays_clean(lab, clean):
    plugin = FGSM(eps=0.1, clean=clean)
    given = lab.batch()
    out = plugin.transform_batch(given, lab.module(plugin)).x
    kept = (out == given.x).flatten(1).all(1)
    assert kept.sum() == clean * 48
    everything = FGSM(eps=0.1)
    attacked = everything.transform_batch(given, lab.module(everything)).x
    torch.testing.assert_close(out[~kept], attacked[~kept])


def test_eps_rises_over_the_warm_up(lab):
    plugin, sizes = FGSM(eps=0.1, warmup_steps=4, eval_samples=0), []

    class Watch(Mixup):
        """Sees each batch before the attack."""

        option = "watch"

        def transform_batch(self, batch, module):
            self.before = batch.x
            return batch

    watch = Watch(1.0)
    attack = plugin.transform_batch

    def measured(batch, module):
        out = attack(batch, module)
        sizes.append((out.x - watch.before).abs().max().item())
        return out

    plugin.transform_batch = measured
    lab.fit(plugin, watch)
    assert sizes == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1, 0.1], abs=1e-6)


def test_data_that_are_no_images_are_not_clamped():
    plugin = FGSM(eps=5.0)
    module = RecipeModule(nn.Linear(6, 3), nn.functional.cross_entropy, torch.optim.SGD)
    module.build([plugin], Setting((6,), (Task("", "classification", 3),)), devices=1)
    x, y = torch.randn(10, 6), torch.randint(3, (10,))
    out = plugin.transform_batch(Batch(x, {"": y}, {"": y}), module).x
    torch.testing.assert_close((out - x).abs(), torch.full((10, 6), 5.0))


def test_robust_metrics_in_validation_and_in_a_test_on_inference_tensors(lab):
    module, trainer = lab.fit(FGSM(eps=0.1))
    assert trainer.callback_metrics["val/acc_pgd"] <= trainer.callback_metrics["val/acc"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(module, lab.loader(), verbose=False)
    tested = module.metrics
    net = module.model.eval()
    attacked = (lab.x + 0.1 * gradient_of(net, lab.x, lab.y).sign()).clamp(0, 1)
    assert tested["test/acc_fgsm"] == pytest.approx((net(attacked).argmax(1) == lab.y).float().mean().item())
    assert tested["test/acc_pgd"] <= tested["test/acc"]
    assert "val/acc_fgsm" not in tested


def test_only_the_first_samples_of_a_split_are_attacked(lab):
    plugin = FGSM(eps=0.1, eval_samples=20)
    module, _ = lab.fit(plugin)
    for split, names in (("val", ["acc_pgd"]), ("test", ["acc_pgd", "acc_fgsm"])):
        for positions, attacked in (
            (range(16), 16),
            (range(16, 32), 4),
            (range(32, 48), 0),
            (range(1, 33, 2), 10),
            (range(0), 0),
        ):
            batch = lab.batch(len(positions))
            batch.positions = positions
            found = plugin.measure(module, batch, {}, split)
            assert list(found) == names and {len(values) for both in found.values() for values in both} == {attacked}


def test_the_guard_warns_of_a_fall_once_and_its_state_is_kept(lab):
    plugin = FGSM(eps=0.1)
    module, trainer = lab.fit(plugin)
    robust = module.recorder._records.get("fgsm/train_acc_pgd")
    assert robust is not None and 0 <= robust <= 1
    resumed = FGSM(eps=0.1)
    plugin._best = 1.5  # no accuracy is within 0.2 of it
    resumed.load_state_dict(plugin.state_dict())
    resumed._last = plugin._last
    with pytest.warns(UserWarning, match=r"adversarial/fgsm.*fell from 1.50 to .*use \+adversarial=pgd, or lower"):
        resumed.on_validation_start(trainer, module)
    assert [event.partition(",")[0] for event in resumed.events] == [
        f"accuracy under PGD on a training batch fell from 1.50 to {resumed._best:.2f}"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.on_validation_start(trainer, module)
    again = FGSM(eps=0.1)
    again.load_state_dict(resumed.state_dict())
    assert again.events == resumed.events and again._best == resumed._best
    lab.fit(again)  # a training of its own
    assert again.events == [] and again._best <= 1


@pytest.mark.slow
def test_what_one_step_overfits_to_is_told(tmp_path):
    """Catastrophic overfitting on real images: the accuracy under the attack of the training rises, that under PGD falls."""
    if not (root := os.environ.get("FASHION_MNIST_ROOT")):
        pytest.skip("FASHION_MNIST_ROOT does not name a folder with fashion_mnist.npz")
    words = (
        "data=fashion_mnist",
        f"data.root={root}",
        "data.batch_size=128",
        "model=cnn",
        "model.channels=[16,32]",
        "optimizer=adam",
    )
    attack = ("+adversarial=fgsm", "adversarial.eps=0.2", "adversarial.warmup_steps=200", "adversarial.eval_samples=200")
    steps = ("optimizer.lr=3e-3", "max_steps=500", "trainer.val_every_n_steps=50", "trainer.accelerator=cpu", "logger=csv")
    done = command("train.py", *words, *attack, *steps, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, forked=True)
    assert done.returncode == 0
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    known, robust = ([float(row[name]) for row in rows if row["val/acc_pgd"]] for name in ("train/acc", "val/acc_pgd"))
    best = robust.index(max(robust))
    assert min(robust[best:]) < max(robust) / 2 and max(known[best:]) > known[best]
    told = re.findall(r"fell from 0\.\d\d to 0\.\d\d, catastrophic overfitting", done.stderr)
    happened = json.loads((tmp_path / "run" / "result.json").read_text())["events"]
    assert told and len(told) == len(happened) and all(words in event for words, event in zip(told, happened, strict=True))
    assert f"happened {happened[0]}" in " ".join(done.stdout.split())


def test_trains_in_bfloat16(lab):
    module, trainer = lab.fit(FGSM(eps=0.1, label="predicted"), precision="bf16-mixed")
    assert any(not torch.equal(new, old) for new, old in zip(module.model.parameters(), lab.net.parameters(), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(module, lab.loader(), verbose=False)
    assert 0 <= module.metrics["test/acc_pgd"] <= 1


def test_true_as_yaml_reads_it():
    assert FGSM(label=True).label == "true"


def test_refuses_predicted_values_of_a_regression():
    module = RecipeModule(nn.Linear(6, 1), nn.functional.mse_loss, torch.optim.SGD)
    with pytest.raises(Refusal, match="label=predicted.*use adversarial.label=true"):
        module.build([FGSM(label="predicted")], Setting((6,), (Task("", "regression", 1),)), devices=1)


def test_a_regression_is_attacked_and_has_no_robust_accuracy():
    plugin = FGSM(eps=0.1)
    module = RecipeModule(nn.Linear(6, 1), nn.functional.mse_loss, torch.optim.SGD)
    module.build([plugin], Setting((6,), (Task("", "regression", 1),)), devices=1)
    x, y = torch.randn(10, 6), torch.randn(10, 1)
    given = Batch(x, {"": y}, {"": y})
    out = plugin.transform_batch(given, module).x
    before, after = (nn.functional.mse_loss(module.model(inputs), y) for inputs in (x, out))
    assert after > before
    assert plugin.measure(module, given, {}, "test") == {} and plugin.monitor is None
