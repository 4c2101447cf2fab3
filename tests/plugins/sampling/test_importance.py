import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.augmentation.mixup import Mixup
from plugins.base import Batch, Plugin, RecipeError, Refusal, Selection, Setting, Stage, Task
from plugins.diagnostics.gradient_noise import GradientStandardError
from plugins.distillation.logits import LogitDistillation
from plugins.sampling.importance import ImportanceSampling, probabilities
from plugins.wrapper.sam import SAM
from recipes.data.loaders import StepLoader
from recipes.data.split import Split
from recipes.engine.losses import TaskLoss
from recipes.engine.module import RecipeModule
from recipes.engine.objective import TaskLosses
from tests.harness import config_of, fit, parameters, same_bits
from tests.ranks import on_ranks

TASK = Task("", "classification", 3)
SAMPLES, SIZE = 48, 8


def test_the_probabilities_written_out():
    losses = torch.rand(50)
    expected = 0.7 * losses.double() / losses.double().sum() + 0.3 / 50
    torch.testing.assert_close(probabilities(losses, 0.3), expected)
    unknown = losses.clone()
    unknown[:5] = torch.tensor([torch.nan, torch.inf, torch.nan, -torch.inf, torch.nan])
    filled = losses.clone()
    filled[:5] = losses[5:].mean()
    unknown[3] = torch.nan
    torch.testing.assert_close(probabilities(unknown, 0.3), probabilities(filled, 0.3), rtol=1e-6, atol=0)
    for alike in (torch.zeros(50), torch.full((50,), torch.nan)):
        torch.testing.assert_close(probabilities(alike, 0.3), torch.full((50,), 0.02).double())


def drawn_by(losses, epoch=0, uniform=0.2):
    plugin = ImportanceSampling(uniform)
    plugin.load_state_dict({"losses": losses, "of_epoch": losses, "epoch": -1})
    return plugin.order({"": torch.zeros(len(losses))}, epoch, torch.Generator().manual_seed(epoch))


def test_the_mean_over_draws_is_that_of_the_split_and_varies_less():
    """Σ v_i / (n p_i) over draws, of an epoch and of single draws."""
    losses, values = torch.rand(200) ** 6, torch.rand(200)
    values = losses * (0.9 + 0.2 * values)  # what a step adds is about the loss
    sums = []
    for epoch in range(200):
        order, correction = drawn_by(losses, epoch)
        assert correction.max() <= 5 * (1 + 1e-6)
        sums.append((values * correction)[order].view(-1, 8).mean(1))
    sums = torch.stack(sums)
    error = sums.std() / len(sums.flatten()) ** 0.5
    assert (sums.mean() - values.mean()).abs() < 5 * error
    plain = torch.stack([values[torch.randperm(200)].view(-1, 8).mean(1) for _ in range(200)])
    assert sums.var() < 0.4 * plain.var()


# ------------------------------------------------------------------ in training


def problem():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, 4, generator=generator) * torch.rand(SAMPLES, 1, generator=generator) * 4
    return x, torch.randint(3, (SAMPLES,), generator=generator)


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Linear(4, 3)


def sgd(groups):
    return torch.optim.SGD(groups, 0.1, momentum=0.9)


class Orders(Plugin):
    """Keeps which samples each step had, and what makes up for it."""

    stage, group, option = Stage.DIAGNOSTICS, "test", "orders"
    on_class_maps = True

    def __init__(self):
        self.steps = []

    def penalty(self, module, batch, outputs):
        self.steps.append((batch.samples, batch.correction))


def trained(make_trainer, steps, *plugins, parts=1, weight=None, resume=None, loss=None):
    module = RecipeModule(net(), loss or nn.CrossEntropyLoss(), sgd, parts=parts)
    x, y = problem()
    loader = StepLoader(Split(x, {"": y}, weight=weight), SIZE // parts, 0, parts)
    trainer = make_trainer(max_steps=steps, callbacks=list(plugins))
    trainer.fit(module, loader, ckpt_path=resume)
    return module


def of_each(output, target):
    """A loss without weights, and without labels that it ignores."""
    return functional.cross_entropy(output, target, reduction="none")


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_a_loop_by_hand(make_trainer, parts, weighted):
    x, y = problem()
    w = torch.rand(SAMPLES) + 0.1 if weighted else torch.ones(SAMPLES)
    seen, steps = Orders(), 14  # more than two epochs
    loss = None if weighted else of_each
    module = trained(make_trainer, steps, ImportanceSampling(), seen, parts=parts, weight=w if weighted else None, loss=loss)
    by_hand, known, an_epoch = net(), torch.full((SAMPLES,), torch.nan), SAMPLES // SIZE
    optimizer = sgd(by_hand.parameters())
    for step in range(steps):
        if step % an_epoch == 0:
            p = probabilities(known.clone(), 0.2)
        taken = torch.cat([index for index, _ in seen.steps[step * parts : (step + 1) * parts]])
        correction = torch.cat([factor for _, factor in seen.steps[step * parts : (step + 1) * parts]])
        torch.testing.assert_close(correction, (1 / (SAMPLES * p))[taken].float())
        values = functional.cross_entropy(by_hand(x[taken]), y[taken], reduction="none")
        optimizer.zero_grad()
        ((w[taken] * values * correction).sum() / ((w[taken] * correction).sum() if weighted else SIZE)).backward()
        optimizer.step()
        for index, value in sorted(zip(taken.tolist(), values.tolist(), strict=True), key=lambda pair: pair[1]):
            known[index] = value
    torch.testing.assert_close(module.model.weight, by_hand.weight, rtol=1e-4, atol=1e-6)
    orders = [torch.cat([index for index, _ in seen.steps[a * parts : (a + an_epoch) * parts]]) for a in (0, an_epoch)]
    assert orders[0].sort().values.tolist() == list(range(SAMPLES)) != orders[1].sort().values.tolist()


@pytest.mark.parametrize("parts", [1, 2])
def test_the_noise_that_is_told_is_that_of_the_steps_gradient(make_trainer, parts):
    """Of cᵢ gᵢ over the samples drawn, by numpy, with cᵢ = 1 / (n pᵢ) and gᵢ = (p − y)(x, 1)."""
    (x, y), drawn, seen, told = problem(), ImportanceSampling(), Orders(), GradientStandardError(pieces=SIZE // parts)
    losses = torch.rand(SAMPLES) ** 4
    drawn.load_state_dict({"losses": losses, "of_epoch": losses, "epoch": -1})
    found = {}
    told.looks_now = lambda module: True
    told.record = lambda module, name, value, **_: found.update({name: float(value)})
    trained(make_trainer, 1, drawn, seen, told, parts=parts, loss=of_each)
    taken, correction = (torch.cat(each) for each in zip(*seen.steps, strict=True))
    error = net()(x[taken]).softmax(1) - functional.one_hot(y[taken], 3)
    gradients = torch.cat([(error[:, :, None] * x[taken][:, None, :]).flatten(1), error], 1) * correction[:, None]
    gradients = gradients.detach().numpy()
    assert correction.std() > 0.5
    assert found["norm"] == pytest.approx(np.linalg.norm(gradients.mean(0)), rel=1e-4)
    assert found["error"] == pytest.approx((gradients.var(0, ddof=1).sum() / SIZE) ** 0.5, rel=1e-4)


def test_a_distilled_term_is_corrected_like_the_loss(make_trainer):
    teacher = nn.Module()
    teacher.setting, teacher.outputs = Setting((4,), (TASK,)), lambda x: {"": 3 * x[:, :3]}

    class Taught(LogitDistillation):
        group, option = "distillation", "logits"

        def prepare(self, given):
            super().prepare(Setting(given.shape, given.tasks, given.seed, given.training_inputs, lambda folder: teacher))

    seen = Orders()
    plugins = [ImportanceSampling(), seen, Taught("there", 1.0, 1.0)]
    before = trained(make_trainer, 7, *plugins).model
    module = trained(make_trainer, 8, ImportanceSampling(), Orders(), Taught("there", 1.0, 1.0))
    x, _ = problem()
    again = Orders()
    trained(make_trainer, 8, ImportanceSampling(), again, Taught("there", 1.0, 1.0))
    taken, correction = again.steps[7]
    values = functional.kl_div(before(x[taken]).log_softmax(1), (3 * x[taken, :3]).softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(
        module.last_objective, ((values * correction).sum() / correction.sum()).detach()
    )  # labels may be ignored
    assert correction.std() > 0.05


@pytest.mark.parametrize("parts", [1, 2])
def test_losses_are_those_of_the_weights_and_not_of_where_sam_moves_them(make_trainer, parts):
    plugin, seen = ImportanceSampling(), Orders()
    trained(make_trainer, 1, plugin, seen, SAM(rho=1.0), parts=parts)
    x, y = problem()
    taken = torch.cat([index for index, _ in seen.steps[:parts]])
    assert len(seen.steps) == 2 * parts and len(taken) == SIZE
    expected = functional.cross_entropy(net()(x[taken]), y[taken], reduction="none").detach()
    torch.testing.assert_close(plugin._losses[taken], expected)


@pytest.mark.parametrize("at", [13, 20])
def test_it_goes_on_bit_for_bit(tmp_path, at):
    config = config_of(["sampling/importance", "augmentation/horizontal_flip"], "data.batch_size=128")
    whole = fit(config, tmp_path / "whole", 23, copy_at=at)  # 10 steps make an epoch
    assert whole.trainer.num_training_batches == 10
    resumed = fit(config, tmp_path / "resumed", 23, resume=tmp_path / "whole" / "copy.ckpt")
    assert not same_bits(parameters(whole), parameters(resumed))


def on_a_rank():
    """What each process of several draws in a second epoch, and knows of the losses."""
    plugin, positions = ImportanceSampling(), torch.arange(12)[torch.distributed.get_rank() :: 2]
    order, _ = plugin.order({"": torch.zeros(12)}, 0, torch.Generator().manual_seed(1))

    class Module:
        progress = (0, None)

        def loss_of_samples(self, outputs, targets):
            return {"": positions.float() + 1}

    plugin.transform_losses({}, Module(), Batch(None, {}, {}, samples=positions), {})
    order, correction = plugin.order({"": torch.zeros(12)}, 1, torch.Generator().manual_seed(1))
    return order.tolist(), correction.tolist(), plugin.state_dict()["losses"].tolist()


def test_processes_draw_alike_of_what_all_have_seen():
    first, second = on_ranks(2, on_a_rank)
    assert first == second and first[2] == [float(number) for number in range(1, 13)]
    torch.testing.assert_close(torch.tensor(first[1]), (1 / (12 * probabilities(torch.arange(1.0, 13.0), 0.2))).float())


def test_a_sample_that_is_drawn_twice_has_the_larger_loss():
    plugin = ImportanceSampling()
    plugin.order({"": torch.zeros(4)}, 0, torch.Generator())

    class Module:
        progress = (0, None)

        def loss_of_samples(self, outputs, targets):
            return {"a": torch.tensor([1.0, 5.0, 2.0]), "b": torch.tensor([0.5, 0.5, 0.5])}

    plugin.transform_losses({}, Module(), Batch(None, {}, {}, samples=torch.tensor([3, 1, 3])), {})
    torch.testing.assert_close(plugin._losses, torch.tensor([torch.inf, 5.5, torch.inf, 2.5]))


def test_refuses_what_has_no_loss_of_each_sample(make_trainer):
    with pytest.raises(Refusal, match="looks at the loss of each sample, and augmentation/mixup trains on mixtures of several"):
        ImportanceSampling().check(Selection([Mixup()], Setting((4,), (TASK,))))
    with pytest.raises(RecipeError, match="returns one number for all samples, and they are weighted"):
        trained(make_trainer, 1, ImportanceSampling(), loss=lambda output, target: functional.cross_entropy(output, target))
    with pytest.raises(RecipeError, match=r"^uniform must be a number in \(0, 1\]"):
        ImportanceSampling(0.0)


def test_the_share_of_all_is_a_plain_run(make_trainer):
    plain, off = trained(make_trainer, 9), trained(make_trainer, 9, ImportanceSampling(1.0))
    assert torch.equal(plain.model.weight, off.model.weight)
    assert not torch.equal(plain.model.weight, trained(make_trainer, 9, ImportanceSampling()).model.weight)


class Losses:
    progress = (0, None)

    def loss_of_samples(self, outputs, targets):
        return {"": functional.cross_entropy(outputs[""], targets[""], reduction="none").view(len(outputs[""]), -1).mean(1)}


def seen_losses(batch, outputs, setting=None):
    plugin = ImportanceSampling()
    plugin.prepare(setting or Setting((4,), (TASK,)))
    plugin.order({"": torch.zeros(len(batch))}, 0, torch.Generator())
    plugin.transform_losses({}, Losses(), batch, {"": outputs})
    return plugin._losses


def test_what_has_the_weight_0_has_no_loss():
    outputs, numbers = torch.randn(4, 3), torch.arange(4)
    batch = Batch(outputs, {"": torch.tensor([0, 1, 2, 0])}, {}, samples=numbers, weight={"": torch.tensor([0.0, 1, 2, 0])})
    plain = functional.cross_entropy(outputs, batch.targets[""], reduction="none")
    torch.testing.assert_close(seen_losses(batch, outputs), plain * torch.tensor([0.0, 1, 1, 0]))


def test_places_that_are_ignored_have_no_loss():
    outputs, numbers = torch.randn(4, 3, 5), torch.arange(4)
    kept = torch.rand(4, 5) > 0.4
    batch = Batch(outputs, {"": torch.randint(3, (4, 5))}, {}, samples=numbers, weight={"": kept.float()})
    setting = Setting((4,), (Task("", "classification", 3, shape=(5,), ignored=-100),))
    expected = (functional.cross_entropy(outputs, batch.targets[""], reduction="none") * kept).mean(1)
    torch.testing.assert_close(seen_losses(batch, outputs, setting), expected)
    batch.targets[""], batch.extra = functional.one_hot(batch.targets[""], 3).movedim(-1, 1).float(), {}
    torch.testing.assert_close(seen_losses(batch, outputs, setting), expected)


def test_with_weights_the_ratio_is_that_of_the_split():
    """The weights of what is drawn by its loss add up to more than those of the split where both grow together."""
    values, n = torch.rand(400) ** 3, 400
    weight = 0.1 + values
    p = probabilities(values, 0.2)
    losses = TaskLosses({"": TaskLoss(nn.MSELoss(), Task("", "regression", 1))}, {})
    index = torch.multinomial(p, 200_000, replacement=True)
    batch = Batch(
        index, {"": values[index]}, {"": values[index]}, weight={"": weight[index]}, correction=(1 / (n * p)).float()[index]
    )
    exact = (weight * values).sum() / weight.sum()
    for total in (losses.totals([batch], 1)[""], losses.weights([batch], 1, "")):
        found = (batch.counted("") * values[index]).sum() / total
        assert found == pytest.approx(exact.item(), rel=0.02)
