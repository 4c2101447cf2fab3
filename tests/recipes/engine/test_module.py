import copy
import random
import warnings
from contextlib import contextmanager
from functools import partial

import lightning as L
import pytest
import torch
import torchvision
from lightning.pytorch import callbacks as lightning_callbacks
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from plugins.adversarial.fgsm import FGSM
from plugins.augmentation.mixup import Mixup
from plugins.base import Plugin, RecipeError, Stage, derive_seed, order
from plugins.diagnostics.generalization_gap import GeneralizationGap
from plugins.inference.mc_dropout import MCDropout
from plugins.loss.by_task import LossByTask
from plugins.multitask.equal import EqualWeights
from plugins.preprocessing.standardize import StandardizeInputs
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.label_smoothing import LabelSmoothing
from plugins.regularizer.weight_noise import WeightNoise
from plugins.stopping.early import EarlyStopping
from plugins.wrapper.sam import SAM
from recipes.data.loaders import EvaluationLoader, StepLoader
from recipes.data.split import Split
from recipes.engine.groups import GroupRules, parameter_groups
from recipes.engine.module import RecipeModule

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def net(dropout=0.0):
    layers = [nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)]
    return nn.Sequential(*layers)


def samples(number=50, classes=3):
    return Split(torch.randn(number, 6), {"": torch.randint(classes, (number,))})


def images(number=24, channels=1, size=8):
    return torch.rand(number, channels, size, size), torch.randint(3, (number,))


def own_model(channels=1):
    """A user's own network for images."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.body(x))

    return Own()


def trainer_of(*callbacks, steps=12, **arguments):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(**{"accelerator": "cpu", "max_steps": steps, "callbacks": list(callbacks), **quiet, **arguments})


def fit(module, loader, *callbacks, validation=None, resume=None, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trainer_of(*callbacks, **arguments)
        trainer.fit(module, loader, validation, ckpt_path=resume)
    return module


def train(model, split, *callbacks, size=8, seed=0, loss=functional.cross_entropy, optimizer=SGD, scheduler=None, **further):
    """A module trained on batches of a StepLoader; further arguments go to the module or the Trainer."""
    of_module = {name: further.pop(name) for name in ("parts", "no_decay", "log_every_n_steps") if name in further}
    module = RecipeModule(model, loss, optimizer, scheduler, seed=seed, **of_module)
    return fit(module, StepLoader(split, size, seed, module.parts), *callbacks, **further)


def batches(split, size, seed, steps):
    """What StepLoader gives, taken by its order alone."""
    loader, found = StepLoader(split, size, seed), []
    for epoch in range(steps):
        found += [(split.x[index], split.targets[""][index]) for index in loader.order(epoch)]
    return found[:steps]


def assert_same(first, second):
    second = dict(second.state_dict())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second[name]), name


class Named(Plugin):
    """A technique whose name is not that of its file."""

    stage = Stage.DIAGNOSTICS
    option, group = "named", "test"


# ------------------------------------------------------------------ the plain step


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.Adam, lr=1e-2), partial(torch.optim.AdamW, lr=1e-2)])
def test_bare_training_is_a_loop_written_by_hand_bit_for_bit(optimizer):
    model, split, seed, steps = net(dropout=0.3), samples(), random.randrange(1000), 20
    by_hand = copy.deepcopy(model)

    def schedule(optimizer, steps):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    trained = train(model, split, seed=seed, optimizer=optimizer, scheduler=schedule, steps=steps)

    optimizer = optimizer(by_hand.parameters())
    scheduler = schedule(optimizer, steps)
    for step, (x, y) in enumerate(batches(split, 8, seed, steps)):
        torch.manual_seed(derive_seed(seed, "forward", step, 0))  # dropout masks are a function of seed and step
        optimizer.zero_grad()
        functional.cross_entropy(by_hand(x), y).backward()
        optimizer.step()
        scheduler.step()
    assert_same(trained.model, by_hand)


def test_looking_at_a_loader_of_the_user_leaves_its_order_alone():
    model, split = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), samples()
    data = TensorDataset(split.x, split.targets[""])
    by_hand = copy.deepcopy(model)
    loaders = [DataLoader(data, 8, sampler=RandomSampler(data, generator=torch.Generator().manual_seed(7))) for _ in range(2)]
    fit(RecipeModule(model, functional.cross_entropy, SGD), loaders[0], StandardizeInputs(), steps=-1, max_epochs=3)
    optimizer = SGD(by_hand.parameters())
    for x, y in (batch for _ in range(3) for batch in loaders[1]):
        optimizer.zero_grad()
        functional.cross_entropy(by_hand((x - split.x.mean(0)) / split.x.std(0, correction=0)), y).backward()
        optimizer.step()
    torch.testing.assert_close(list(model.parameters()), list(by_hand.parameters()), rtol=1e-4, atol=1e-5)


def test_a_shuffling_loader_gives_another_order_each_epoch_whatever_technique_is_on():
    """Our own seeding of the forward pass must not reset the global generator that the loader draws from."""

    def orders(*plugins):
        seen = []

        class Watch(Named):
            def transform_batch(self, batch, module):
                seen.append(batch.x[:, 0].int().tolist())
                return batch

        data = TensorDataset(torch.arange(12.0).unsqueeze(1).repeat(1, 6), torch.randint(3, (12,)))
        validation = DataLoader(data, 4)
        loader = DataLoader(data, 4, shuffle=True)
        fit(RecipeModule(net(), functional.cross_entropy, SGD), loader, Watch(), *plugins, validation=validation, steps=9)
        return [[value for batch in seen[i : i + 3] for value in batch] for i in (0, 3, 6)]

    torch.manual_seed(1)
    plain = orders()
    assert len({tuple(epoch) for epoch in plain}) == 3
    torch.manual_seed(1)
    assert orders(Dropout(0.5))[1:] == plain[1:]


def test_accumulation_is_the_mean_over_the_whole_batch():
    split, model = samples(60), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    by_hand = copy.deepcopy(model)
    trained = train(model, split, size=5, parts=3, steps=8)
    optimizer = SGD(by_hand.parameters())
    for x, y in batches(split, 15, 0, 8):
        optimizer.zero_grad()
        loss = functional.cross_entropy(by_hand(x), y)
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(list(trained.model.parameters()), list(by_hand.parameters()))
    torch.testing.assert_close(trained.last_objective, loss.detach())
    assert trained.steps_done == 8


def test_parts_of_different_sizes_count_by_their_samples():
    x, y, model = torch.randn(5, 6), torch.randint(3, (5,)), nn.Linear(6, 3)
    by_hand = copy.deepcopy(model)
    module = RecipeModule(model, functional.cross_entropy, SGD, parts=2)
    fit(module, DataLoader(TensorDataset(x, y), 5), steps=1)
    optimizer = SGD(by_hand.parameters())
    functional.cross_entropy(by_hand(x), y).backward()
    optimizer.step()
    torch.testing.assert_close(list(model.parameters()), list(by_hand.parameters()))


def test_no_decay():
    model = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Conv1d(1, 1, 1), nn.LSTM(4, 2))
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def free(no_decay):
        groups = parameter_groups(model, GroupRules(no_decay))
        assert sorted(id(p) for group in groups for p in group["params"]) == sorted(names)
        return {names[id(p)] for group in groups for p in group["params"] if group.get("weight_decay") == 0}

    recurrent = {"3.bias_ih_l0", "3.bias_hh_l0"}
    assert free([]) == set()
    assert free(["bias"]) == {"0.bias", "2.bias", *recurrent}
    assert free(["norm"]) == {"1.weight", "1.bias"}
    assert free(["bias", "norm"]) == {"0.bias", "2.bias", "1.weight", "1.bias", *recurrent}
    with pytest.raises(RecipeError, match="bias or norm, got weights"):
        parameter_groups(model, GroupRules(["weights"]))


def test_no_decay_reaches_the_optimizer():
    model = nn.Linear(6, 3)
    before = copy.deepcopy(model)
    decaying = partial(torch.optim.SGD, lr=0.5, weight_decay=0.2)
    split = Split(torch.zeros(8, 6), {"": torch.arange(8) % 3})
    train(model, split, loss=lambda output, target: 0 * output.sum(), optimizer=decaying, no_decay=["bias"], steps=1)
    torch.testing.assert_close(model.weight, 0.9 * before.weight)
    assert torch.equal(model.bias, before.bias)


# ------------------------------------------------------------------ metrics


def test_metrics_stay_against_true_labels():
    split, seen = Split(*(lambda x, y: (x, {"": y}))(*images(40))), []
    validation = Split(*(lambda x, y: (x, {"": y}))(*images(13)))

    class Watch(Named):
        def penalty(self, module, batch, outputs):
            seen.append((batch.targets[""].detach(), outputs[""].detach()))

    techniques = [LabelSmoothing(0.2), Mixup(1.0), FGSM(0.1), Dropout(0.2), SAM(0.05), Watch()]
    module = train(own_model(), split, *techniques, size=10, seed=4, steps=4, validation=EvaluationLoader(validation, 5))

    targets, outputs = zip(*seen[::2], strict=True)  # of the first pass of each step
    assert len(targets) == 4 and all(target.shape == (10, 3) and target.max() < 1 for target in targets)
    truth = torch.cat([y for _, y in batches(split, 10, 4, 4)])
    outputs = torch.cat(outputs)
    assert module.metrics["train/loss"] == pytest.approx(float(functional.cross_entropy(outputs, truth)), rel=1e-5)
    assert module.metrics["train/acc"] == pytest.approx(float((outputs.argmax(1) == truth).float().mean()))

    module.model.eval()
    expected, truth = module.model(validation.x).detach(), validation.targets[""]
    assert module.metrics["val/loss"] == pytest.approx(float(functional.cross_entropy(expected, truth)), rel=1e-5)
    assert module.metrics["val/acc"] == pytest.approx(float((expected.argmax(1) == truth).float().mean()))
    assert module.metrics["gap/acc"] == module.metrics["train/acc"] - module.metrics["val/acc"]


def test_metrics_of_tasks_are_not_weighted():
    """Weightings of tasks must compare: the loss is the plain sum, and evaluating leaves a weighting alone."""
    calls = []

    class Weighted(EqualWeights):
        option = "weighted"

        def combine(self, losses, module):
            calls.append(module.model.training)
            return 7 * super().combine(losses, module)

    x, targets = torch.randn(30, 6), {"digit": torch.randint(3, (30,)), "speaker": torch.randint(5, (30,))}
    split = Split(x, targets)
    module = train(nn.Linear(6, 3), split, Weighted(), size=10, steps=3, loss=LossByTask(), validation=EvaluationLoader(split))
    assert len(calls) == 3 and all(calls)
    metrics = module.metrics
    module.model.eval()
    outputs = {task: output.detach() for task, output in module.model(x).items()}
    losses = {task: float(functional.cross_entropy(outputs[task], target)) for task, target in targets.items()}
    assert metrics["val/loss"] == pytest.approx(sum(losses.values()), rel=1e-5)
    assert metrics["val/digit/loss"] == pytest.approx(losses["digit"], rel=1e-5)
    right = {task: float((outputs[task].argmax(1) == target).float().mean()) for task, target in targets.items()}
    assert metrics["val/speaker/acc"] == pytest.approx(right["speaker"])
    assert metrics["val/acc"] == pytest.approx(sum(right.values()) / 2)


def test_single_steps_are_logged_at_their_interval():
    from lightning.pytorch.loggers.logger import DummyLogger

    class Memory(DummyLogger):
        def __init__(self):
            super().__init__()
            self.rows = []

        def log_metrics(self, metrics, step=None):
            self.rows.append((step, metrics))

    class Counter(Named):
        def penalty(self, module, batch, outputs):
            self.record(module, "twice", torch.tensor(2.0 * module.steps_done))

    memory, split = Memory(), samples(64)
    optimizer = partial(torch.optim.SGD, lr=0.25)
    train(net(), split, Counter(), optimizer=optimizer, log_every_n_steps=5, logger=memory, steps=12)
    assert [step for step, _ in memory.rows] == [5, 10, 12]  # the last step too, whatever the interval
    assert [row["named/twice"] for _, row in memory.rows] == [8, 18, 22]  # of the step itself, the fifth one is number 4
    assert all(row["lr"] == 0.25 and 0 <= row["step/acc"] <= 1 for _, row in memory.rows)


# ------------------------------------------------------------------ several passes in a step


def test_two_passes_see_one_problem_and_statistics_count_once():
    seen, masks, means = [], [], []

    class Watch(Named):
        def penalty(self, module, batch, outputs):
            seen.append((batch.x, batch.targets[""], module.model[0].weight.detach().clone()))

    model, split = net(dropout=0.5), samples(64)
    norm = model[1]
    norm.register_forward_hook(
        lambda layer, inputs, output: means.append(inputs[0].mean(0).detach()) if layer.training else None
    )
    model[3].register_forward_hook(lambda layer, inputs, output: masks.append(output == 0) if layer.training else None)
    train(model, split, SAM(rho=0.5), Mixup(1.0), Watch(), steps=6)
    assert len(seen) == len(masks) == 12
    for (first, second), (mask, same_mask) in zip(
        zip(seen[::2], seen[1::2], strict=True), zip(masks[::2], masks[1::2], strict=True), strict=True
    ):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        assert not torch.equal(first[2], second[2])  # the weights were moved in between
        dropped = mask ^ same_mask  # units are 0 by ReLU too, which may differ where the weights differ
        assert dropped.float().mean() < 0.2
    assert not torch.equal(seen[0][0], seen[2][0])
    expected = torch.zeros(16)
    for mean in means[::2]:  # of the first passes alone
        expected = 0.9 * expected + 0.1 * mean
    torch.testing.assert_close(norm.running_mean, expected)
    assert norm.num_batches_tracked == 6


def test_two_passes_in_parts_see_the_masks_of_their_part():
    masks = []
    model, split = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 3)), samples(64)
    model[1].register_forward_hook(lambda layer, inputs, output: masks.append(output == 0) if layer.training else None)
    train(model, split, SAM(rho=0.5), parts=2, steps=3)
    assert len(masks) == 12
    for i in range(0, 12, 4):
        assert torch.equal(masks[i], masks[i + 2]) and torch.equal(masks[i + 1], masks[i + 3])
        assert not torch.equal(masks[i], masks[i + 1])


@pytest.mark.parametrize("parts", [1, 2])
def test_in_bf16_the_second_pass_uses_the_moved_weights(parts):
    """Autocast can keep bf16 copies of the weights over a step: the second pass would see the ones before the move."""
    rho, rate, split = 0.5, 0.2, samples(16)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    by_hand = copy.deepcopy(model)
    optimizer = partial(torch.optim.SGD, lr=rate)
    train(model, split, SAM(rho), size=8 // parts, parts=parts, optimizer=optimizer, precision="bf16-mixed", steps=2)

    weights = list(by_hand.parameters())
    for x, y in batches(split, 8, 0, 2):

        def gradient(x=x, y=y):
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                losses = [
                    functional.cross_entropy(by_hand(piece), target)
                    for piece, target in zip(x.chunk(parts), y.chunk(parts), strict=True)
                ]
            return torch.autograd.grad(sum(losses) / parts, weights)

        first = gradient()
        norm = torch.cat([part.flatten() for part in first]).norm()
        before = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight, part in zip(weights, first, strict=True):
                weight += rho * part / norm
        second = gradient()
        with torch.no_grad():
            for weight, kept, part in zip(weights, before, second, strict=True):
                weight.copy_(kept - rate * part)
    for ours, theirs in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_weights_moved_during_a_pass_are_back_for_the_update_in_bf16():
    split, model = samples(16), nn.Linear(6, 3)
    before = copy.deepcopy(model)
    still = partial(torch.optim.SGD, lr=0.0)
    train(model, split, WeightNoise(std=1.0), SAM(0.5), optimizer=still, precision="bf16-mixed", steps=2)
    assert_same(model, before)


# ------------------------------------------------------------------ plugins


def test_plugins_run_in_their_declared_order():
    calls = []

    def plugin(name, at):
        class Technique(Named):
            stage, option = at, name

            def transform_batch(self, batch, module):
                calls.append((name, "batch"))
                return batch

            @contextmanager
            def around_pass(self, module, batch):
                calls.append((name, "enter"))
                yield
                calls.append((name, "leave"))

            def after_step(self, module, optimizer):
                calls.append((name, "after"))

        return Technique()

    techniques = [plugin("c", Stage.MIXING), plugin("a", Stage.GEOMETRY), plugin("b", Stage.GEOMETRY)]
    random.shuffle(techniques)
    module = train(net(), samples(8), *techniques, steps=1)
    assert [name for name, what in calls if what == "batch"] == ["a", "b", "c"]
    assert [name for name, what in calls if what == "enter"] == ["a", "b", "c"]
    assert [name for name, what in calls if what == "leave"] == ["c", "b", "a"]
    assert [name for name, what in calls if what == "after"] == ["a", "b", "c"]
    assert module.trainer.callbacks[:3] == order(techniques)  # Lightning's own hooks come in the same order


@pytest.mark.parametrize("method", ["predict", "combine", "aggregate", "evaluation_weights"])
def test_what_only_one_can_do_is_refused_to_two(method):
    techniques = [type(name, (Named,), {method: lambda *_: None, "option": name})() for name in ("one", "two")]
    with pytest.raises(RecipeError, match=f"test/one and test/two both define {method}"):
        train(net(), samples(), *techniques)


def test_a_plugin_that_comes_late_is_refused():
    module = train(net(), samples(), steps=1)
    with pytest.raises(RecipeError, match="regularizer/dropout came after the model was built"):
        fit(module, DataLoader(TensorDataset(samples().x, samples().targets[""]), 8), Dropout(0.5))


def test_a_trainer_without_what_a_technique_asks_of_it_is_refused():
    split = samples()
    early = {"validation": EvaluationLoader(split), "steps": 4}
    with pytest.raises(RecipeError, match=r"stopping/early needs L.Trainer\(val_check_interval=2\), got 1.0"):
        train(net(), split, EarlyStopping(every_n_steps=2), **early)
    module = train(net(), split, EarlyStopping(every_n_steps=2), **early, val_check_interval=2, check_val_every_n_epoch=None)
    assert module.steps_done == 4


def test_adding_a_technique_leaves_the_draws_of_the_others_alone():
    def draws(*plugins):
        seen = []

        class Watch(Named):
            stage, option = Stage.COLOUR, "watch"

            def transform_batch(self, batch, module):
                seen.append(torch.rand(3, generator=module.generator("watch")))
                return batch

        train(net(), samples(32), Watch(), *plugins, steps=4)
        return torch.stack(seen)

    plain = draws()
    assert len(plain.unique()) == plain.numel()
    assert torch.equal(plain, draws(Dropout(0.4), Mixup(1.0), SAM(0.1), WeightNoise(0.1)))


# ------------------------------------------------------------------ plain Python, with a model and a loader of one's own


def test_a_model_and_a_loader_of_the_user():
    loader, validation = (DataLoader(TensorDataset(*images(n)), batch_size=8, shuffle=n == 24) for n in (24, 12))
    model = own_model()
    before = copy.deepcopy(model)
    module = RecipeModule(model, nn.functional.cross_entropy, partial(torch.optim.Adam, lr=1e-3))
    stop = lightning_callbacks.EarlyStopping("val/loss", patience=50)
    trainer = trainer_of(Dropout(0.5), FGSM(eps=0.1), stop, max_epochs=2, steps=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, validation)
        tested = trainer.test(module, validation, verbose=False)
    assert module.steps_done == 6
    assert module.setting.shape == (1, 8, 8) and [task.outputs for task in module.setting.tasks] == [3]
    assert {"train/loss", "val/loss", "val/acc", "val/acc_pgd"} <= module.metrics.keys()
    assert stop.best_score == pytest.approx(min(stop.best_score, module.metrics["val/loss"]))
    assert tested[0]["test/acc"] == pytest.approx(module.metrics["test/acc"])
    matrix = torch.tensor(module.confusion[""])
    assert matrix.sum() == 12 and matrix.trace() / 12 == pytest.approx(module.metrics["test/acc"])
    assert not torch.equal(model.head.weight, before.head.weight)


def test_without_validation_and_with_lightnings_own_logger_and_checkpoints(tmp_path):
    split = samples(16)
    loader = DataLoader(TensorDataset(split.x, split.targets[""]), 8)
    arguments = {"logger": True, "enable_checkpointing": True, "default_root_dir": tmp_path, "steps": -1}
    model = net()
    start = copy.deepcopy(model)
    whole = fit(RecipeModule(model, functional.cross_entropy, SGD), loader, Dropout(0.5), **arguments, max_epochs=4)
    half = fit(RecipeModule(start, functional.cross_entropy, SGD), loader, Dropout(0.5), **arguments, max_epochs=2)
    (path,) = half.trainer.checkpoint_callback.best_k_models or [half.trainer.checkpoint_callback.best_model_path]
    resumed = RecipeModule(net(), functional.cross_entropy, SGD)
    fit(resumed, loader, Dropout(0.5), **arguments, max_epochs=4, resume=path)
    assert resumed.steps_done == 8
    assert_same(whole.model, resumed.model)


def test_several_targets_get_a_head_each():
    x = images(30)[0]
    targets = [{"digit": torch.tensor(i % 3), "speaker": torch.tensor(i % 5), "size": torch.rand(())} for i in range(30)]
    loader = DataLoader(list(zip(x, targets, strict=True)), batch_size=10)
    module = RecipeModule(own_model(), LossByTask(), SGD)
    fit(module, loader, EqualWeights(), validation=loader, steps=6)
    assert [(task.name, task.kind, task.outputs) for task in module.setting.tasks] == [
        ("digit", "classification", 3),
        ("speaker", "classification", 5),
        ("size", "regression", 1),
    ]
    assert {name: output.shape[1] for name, output in module.model(x).items()} == {"digit": 3, "speaker": 5, "size": 1}
    assert {"val/digit/acc", "val/speaker/acc", "val/size/loss"} <= module.metrics.keys()


def test_a_model_with_heads_of_its_own():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, x):
            return {"a": self.a(x), "b": self.b(x)}

    split = Split(torch.randn(16, 6), {"a": torch.randint(3, (16,)), "b": torch.rand(16, 2)})
    loader = DataLoader([(split[i].x, split[i].targets) for i in range(16)], 8)
    module = fit(RecipeModule(Two(), functional_of_target, SGD), loader, validation=loader, steps=2)
    assert [(task.name, task.outputs) for task in module.setting.tasks] == [("a", 3), ("b", 2)]
    assert "val/a/acc" in module.metrics


def functional_of_target(output, target):
    return functional.mse_loss(output, target) if target.is_floating_point() else functional.cross_entropy(output, target)


def test_a_resnet_of_torchvision_with_bytes():
    x, y = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.randint(3, (8,))
    seen = []
    model = torchvision.models.resnet18(num_classes=3)
    model.conv1.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    module = RecipeModule(model, functional.cross_entropy, partial(torch.optim.Adam, lr=1e-3))
    fit(module, DataLoader(TensorDataset(x, y), 4), Dropout(0.5), FGSM(eps=0.1, eval_samples=0), steps=2)
    assert module.steps_done == 2 and all(inputs.min() >= 0 and inputs.max() <= 1 for inputs in seen)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_what_looks_inside_works_with_any_loader():
    split = samples(20)
    loader = DataLoader(TensorDataset(split.x, split.targets[""]), 8, shuffle=True)
    module = fit(RecipeModule(net(), functional.cross_entropy, SGD), loader, GeneralizationGap(), validation=loader, steps=6)
    module.model.eval()
    measured = module.evaluate_training(20)
    assert measured["acc"] == pytest.approx(float((module.model(split.x).argmax(1) == split.targets[""]).float().mean()))
    expected = functional.cross_entropy(module.model(split.x).detach(), split.targets[""])
    assert measured["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert module.evaluate_training(5)["acc"] * 5 == pytest.approx(round(module.evaluate_training(5)["acc"] * 5))


@pytest.mark.parametrize(("item", "message"), [(torch.zeros(6), "yield"), ((torch.zeros(6), torch.zeros(2), 1), "yield")])
def test_loaders_that_yield_something_else_are_refused(item, message):
    with pytest.raises(RecipeError, match=message):
        fit(RecipeModule(net(), functional.cross_entropy, SGD), DataLoader([item] * 3))


def test_validation_alone():
    split = samples(12)
    loader = DataLoader(TensorDataset(split.x, split.targets[""]), 5)
    module = RecipeModule(net(dropout=0.2), functional.cross_entropy, SGD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_of(MCDropout(samples=2)).validate(module, loader, verbose=False)
    assert {"val/loss", "val/acc", "val/entropy"} <= module.metrics.keys()


def test_modes_of_frozen_parts_survive_a_validation():
    model, split = net(), samples(16)
    train(model, split, validation=EvaluationLoader(split), steps=2)
    model.train()
    model[1].eval()  # a batch norm that the user froze
    statistics = model[1].running_mean.clone()
    train(model, split, validation=EvaluationLoader(split), steps=4)
    assert not model[1].training and model[0].training
    assert torch.equal(model[1].running_mean, statistics)


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed"])
def test_precisions(precision):
    split = Split(torch.randint(0, 256, (24, 6), dtype=torch.uint8), {"": torch.randint(3, (24,))})
    floats = Split(torch.randn(24, 6), {"": torch.randn(24)})
    module = train(net(), split, LabelSmoothing(), Mixup(), validation=EvaluationLoader(split), precision=precision, steps=6)
    kept = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    assert all(parameter.dtype == kept for parameter in module.parameters())
    assert torch.isfinite(torch.tensor(list(module.metrics.values()))).all()
    regression = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    module = train(regression, floats, loss=LossByTask(), validation=EvaluationLoader(floats), precision=precision, steps=4)
    assert module.metrics["val/loss"] > 0


def test_probabilities_need_a_loss_on_logits():
    from plugins.base import Setting, Task
    from plugins.inference.mc_dropout import MCDropout
    from plugins.loss.mse import MSE
    from plugins.regularizer.dropout import Dropout

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    module = RecipeModule(model, MSE(), partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(RecipeError, match="take loss=cross_entropy"):
        module.build([Dropout(), MCDropout()], Setting((4,), (Task("", "classification", 3),)), devices=1)
