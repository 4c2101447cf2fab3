import torch
import torchvision
from torch import nn

from plugins.normalization.none import NoNormalization
from tests.plugins.normalization.placing import Tokens, convolutional, hosts, normalized, norms, perceptron


def test_norm_layers_are_taken_out_and_nothing_is_put_in():
    model, x = convolutional(), torch.randn(4, 3, 6, 6)
    conv, second, linear, head = model[0], model[2], model[6], model[8]
    assert normalized(NoNormalization(), model, (3, 6, 6)) is model and not norms(model) and not hosts(model)
    h = second(conv(x).relu()).relu().flatten(1)
    torch.testing.assert_close(model(x), head(linear(h).relu()))
    tokens = normalized(NoNormalization(), Tokens(), (4, 6))
    assert not norms(tokens) and tokens(torch.randn(2, 4, 6)).shape == (2, 2)


def test_a_model_without_any_stays_as_it_is():
    model = perceptron()
    layers = list(model)
    normalized(NoNormalization(), model, (5,))
    assert list(model) == layers and not hosts(model)


def test_an_activation_within_a_norm_layer_stays():
    class NormAct(nn.BatchNorm2d):
        def __init__(self, features):
            super().__init__(features)
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(super().forward(x))

    model = normalized(
        NoNormalization(), nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4), nn.Flatten(), nn.Linear(64, 2)), (3, 6, 6)
    )
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(model[:2](x), model[0](x).relu())


def test_a_residual_network_keeps_its_weights():
    model = torchvision.models.resnet18(num_classes=4)
    before = {name: value.clone() for name, value in model.named_parameters()}
    after = dict(normalized(NoNormalization(), model, (3, 32, 32)).named_parameters())
    assert not norms(model) and {name for name in before if name not in after} == {
        name for name in before if "bn" in name or "downsample.1" in name
    }
    assert all(torch.equal(value, before[name]) for name, value in after.items())
