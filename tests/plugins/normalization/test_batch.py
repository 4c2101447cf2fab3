import lightning as L
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from plugins.base import RecipeError, Setting
from plugins.loss.by_task import LossByTask
from plugins.normalization.batch import BatchNormalization
from recipes.engine.module import RecipeModule


def normalized(model, shape, **arguments):
    plugin = BatchNormalization(**arguments)
    plugin.prepare(Setting(shape, ()))
    return plugin.transform_model(model)


def hosts(model):
    return [name for name, module in model.named_modules() if hasattr(module, "attached")]


class Functional(nn.Module):
    """Nonlinearities and a skip that are no modules."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.linear, self.head, self.other = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(5, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.tanh(x + self.second(x)).mean((2, 3))
        x = nn.functional.max_pool1d(self.linear(x).relu_(), 1)
        return {"a": self.head(x).log_softmax(1), "b": torch.sigmoid(self.other(x))}


class PreActivation(nn.Module):
    """A residual network whose norms come before its convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 6, 6])])
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)])
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        h = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            h = h + conv(norm(h).relu())
        return self.head(self.norms[2](h).relu().mean((2, 3)))


def test_after_each_layer_before_its_nonlinearity_and_never_after_the_output():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2), nn.Sigmoid()
    )  # fmt: skip
    x = torch.randn(6, 3, 6, 6)
    conv, linear, head = model[0], model[4], model[6]
    normalized(model, (3, 6, 6), momentum=0.2, eps=1e-3)
    assert hosts(model) == ["0", "4"]
    assert isinstance(conv.norm, nn.BatchNorm2d) and isinstance(linear.norm, nn.BatchNorm1d)
    h = nn.functional.conv2d(x, conv.weight, conv.bias)
    h = nn.functional.batch_norm(h, None, None, training=True, eps=1e-3)
    h = nn.functional.linear(nn.functional.max_pool2d(h, 2).relu().flatten(1), linear.weight, linear.bias)
    h = nn.functional.batch_norm(h, None, None, training=True, eps=1e-3).tanh()
    torch.testing.assert_close(model(x), nn.functional.linear(h, head.weight, head.bias).sigmoid())


def test_nonlinearities_that_are_no_modules_and_several_outputs():
    model = normalized(Functional(), (3, 6, 6))
    assert hosts(model) == ["first", "second", "linear"]
    assert set(model(torch.randn(4, 3, 6, 6))) == {"a", "b"}


def test_norms_before_activations_are_replaced_and_none_is_added():
    model = normalized(PreActivation(), (3, 6, 6))
    assert hosts(model) == [] and all(type(norm) is nn.BatchNorm2d for norm in model.norms)
    model(torch.randn(4, 3, 6, 6))


def test_a_network_with_batch_norm_is_the_same_network():
    model = torchvision.models.resnet18(num_classes=4)
    before, x = {name: value.clone() for name, value in model.state_dict().items()}, torch.randn(4, 3, 32, 32)
    model.bn1.bias.data.fill_(9)  # proves that the layer is a new one
    normalized(model, (3, 32, 32))
    assert hosts(model) == [] and model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert type(model.bn1) is nn.BatchNorm2d and model(x).shape == (4, 4)


def test_layers_that_see_many_positions_are_normalized_over_them():
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 2))
    normalized(model, (9, 5))
    assert hosts(model) == ["3"]
    x = 3 + 2 * torch.randn(8, 9, 6)
    flat = x.flatten(0, 1)
    expected = ((flat - flat.mean(0)) / (flat.var(0, correction=0) + 1e-5).sqrt()).view_as(x)
    torch.testing.assert_close(model[1](x), expected, rtol=1e-4, atol=1e-5)


def test_a_norm_with_its_activation_in_one_keeps_the_activation():
    class NormAct(nn.BatchNorm2d):
        def __init__(self, features):
            super().__init__(features)
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(super().forward(x))

    model = normalized(nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4), nn.Flatten(), nn.Linear(64, 2)), (3, 6, 6))
    assert hosts(model) == [] and isinstance(model[1][0], nn.BatchNorm2d)
    assert model[1](torch.randn(4, 4, 4, 4)).min() == 0


def test_the_backward_pass_of_the_lecture():
    """Lecture D, Batch normalization: the six equations as they stand."""
    x, upstream = (torch.randn(10, 6, dtype=torch.float64) for _ in range(2))
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    layer = normalized(model, (3,), eps=1e-3)[0].norm.double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    m, gamma, eps = len(x), layer.weight.detach(), 1e-3
    mu, variance = x.mean(0), ((x - x.mean(0)) ** 2).mean(0)
    x_hat = (x - mu) / (variance + eps) ** 0.5
    d_x_hat = upstream * gamma
    d_variance = (d_x_hat * (x - mu) * -0.5 * (variance + eps) ** -1.5).sum(0)
    d_mu = (d_x_hat * -1 / (variance + eps) ** 0.5).sum(0) + d_variance * (-2 * (x - mu)).sum(0) / m
    d_x = d_x_hat / (variance + eps) ** 0.5 + d_variance * 2 * (x - mu) / m + d_mu / m
    d_gamma, d_beta = (upstream * x_hat).sum(0), upstream.sum(0)
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    torch.testing.assert_close(y, gamma * x_hat + layer.bias)
    for ours, expected in zip(
        torch.autograd.grad(y, (leaf, layer.weight, layer.bias), upstream), (d_x, d_gamma, d_beta), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_it_can_learn_the_identity():
    """Lecture B, Batch Normalization: γ = √Var[x] and β = E[x] recover the identity mapping."""
    x = 5 + torch.tensor([0.1, 1.0, 30.0]) * torch.randn(40, 3, dtype=torch.float64)
    layer = BatchNormalization(eps=1e-12).make(3, ()).double()
    layer.weight.data, layer.bias.data = x.var(0, correction=0).sqrt(), x.mean(0)
    torch.testing.assert_close(layer(x), x)


def test_running_averages_in_training_are_used_at_test():
    data, momentum, width = 2 + 3 * torch.randn(48, 4), 0.3, 6
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))
    loader = DataLoader(TensorDataset(data, torch.randint(3, (48,))), 16)
    module = RecipeModule(model, LossByTask(), lambda groups: torch.optim.SGD(groups, 0.0))
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[BatchNormalization(momentum=momentum)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    mean, variance = torch.zeros(width), torch.ones(width)
    for piece in data.split(16):
        h = nn.functional.linear(piece, model[0].weight, model[0].bias).detach()
        mean = (1 - momentum) * mean + momentum * h.mean(0)
        variance = (1 - momentum) * variance + momentum * h.var(0)  # torch averages the unbiased variance
    norm = module.model.eval()[0].norm
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    h = nn.functional.linear(data, model[0].weight, model[0].bias)
    torch.testing.assert_close(model[0](data), (h - mean) / (variance + 1e-5).sqrt())


def test_neither_weights_nor_global_random_numbers_change():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    weights, state = [parameter.clone() for parameter in model.parameters()], torch.get_rng_state()
    normalized(model, (5,))
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert all(
        torch.equal(a, b) for a, b in zip((model[0].weight, model[0].bias, *model[2].parameters()), weights, strict=True)
    )


def test_refuses():
    with pytest.raises(RecipeError, match=r"no place for a norm layer in Sequential.*normalization=model"):
        normalized(nn.Sequential(nn.Linear(3, 2), nn.Softmax(1)), (3,))
