"""Norm layers on models that know nothing of them: where they stand, that none stands twice, and that checkpoints reload."""

import pytest
import torch
import torchvision
from torch import nn

from plugins.normalization.batch import BatchNormalization
from plugins.normalization.ghost_batch import GhostBatchNorm, GhostBatchNormalization
from plugins.normalization.group import GroupNormalization
from plugins.normalization.instance import InstanceNormalization
from plugins.normalization.layer import LayerNormalization
from plugins.normalization.none import NoNormalization
from plugins.normalization.rms import FeatureMapRMSNorm, RMSNormalization
from plugins.normalization.weight_standardization import WeightStandardization
from recipes.models.cnn import CNN
from recipes.models.mlp import MLP
from recipes.models.resnet18 import ResNet18
from tests.plugins.normalization.placing import expect_reloads, hosts, normalized, norms

KINDS = {
    BatchNormalization: (nn.BatchNorm1d, nn.BatchNorm2d),
    GhostBatchNormalization: (GhostBatchNorm,),
    LayerNormalization: (nn.GroupNorm, nn.LayerNorm),
    GroupNormalization: (nn.GroupNorm,),
    InstanceNormalization: (nn.InstanceNorm1d, nn.InstanceNorm2d),
    RMSNormalization: (FeatureMapRMSNorm, nn.RMSNorm),
    WeightStandardization: (nn.GroupNorm,),
}
OURS = {  # model, shape of a sample, norm layers of its own, layers behind which one is put
    "mlp": (lambda: MLP((5,), 3, [12, 8]), (5,), 0, 2),
    "cnn": (lambda: CNN((3, 8, 8), 4, [8, 4], 16), (3, 8, 8), 0, 3),
    "resnet18": (lambda: ResNet18((3, 16, 16), 4), (3, 16, 16), 20, 0),
}
THEIRS = {
    "resnet50": (53, 0),
    "mobilenet_v3_small": (34, 2 * 9 + 1),  # both layers of squeeze and excitation, and the hidden layer of the classifier
    "convnext_tiny": (23, 18),  # the layer inside of each block
    "vit_b_16": (25, 12),
}


ALSO = [  # of all pairs those that every run of the tests has
    *(
        ("resnet50", GhostBatchNormalization),
        ("mobilenet_v3_small", WeightStandardization),
        ("mobilenet_v3_small", NoNormalization),
    ),
    *(("convnext_tiny", LayerNormalization), ("vit_b_16", RMSNormalization), ("vit_b_16", NoNormalization)),
]
PAIRS = [
    pytest.param(name, option, id=f"{name}-{option.__name__}", marks=[] if (name, option) in ALSO else [pytest.mark.slow])
    for name in THEIRS
    for option in (*KINDS, NoNormalization)
]


def structure(model):
    return {name: type(module) for name, module in model.named_modules()}


@pytest.mark.parametrize("option", KINDS, ids=lambda option: option.__name__)
@pytest.mark.parametrize("name", OURS)
def test_our_models(name, option):
    make, shape, own, put_in = OURS[name]
    if option is InstanceNormalization and name == "mlp":
        pytest.skip("has no positions, and is refused")
    with torch.device("meta" if name == "resnet18" else "cpu"):
        model = make()
    plugin = option()
    flat = 1 if option is InstanceNormalization and name == "cnn" else 0  # the hidden layer has no positions
    normalized(plugin, model, shape)
    assert (len(norms(model)) - put_in + flat, len(hosts(model))) == (own, put_in - flat)
    assert all(type(norm) in KINDS[option] for norm in norms(model).values())
    before = structure(model)
    assert structure(normalized(plugin, model, shape)) == before
    if name != "resnet18":
        expect_reloads(plugin, make, shape, torch.randn(32, *shape))


@pytest.mark.parametrize(("name", "option"), PAIRS)
def test_models_of_torchvision(name, option):
    """Without numbers: blank samples on torch's device "meta" have a graph all the same."""
    own, put_in = THEIRS[name]
    with torch.device("meta"):
        model = torchvision.models.get_model(name, num_classes=7)
    assert len(norms(model)) == own
    parameters = {name for name, _ in model.named_parameters() if name.endswith("weight")} - {
        f"{name}.weight" for name in norms(model)
    }
    normalized(option(), model, (3, 224, 224))
    assert parameters <= {name for name, _ in model.named_parameters()}
    if option is NoNormalization:
        assert not norms(model) and not hosts(model)
        return
    # the layers of squeeze and excitation, and that of the classifier, have no positions
    flat = 19 if option is InstanceNormalization and name == "mobilenet_v3_small" else 0
    gone = 1 if option is InstanceNormalization and name == "convnext_tiny" else 0  # in the classifier
    assert (len(norms(model)), len(hosts(model))) == (own - gone + put_in - flat, put_in - flat)
    assert all(isinstance(norm, KINDS[option]) for norm in norms(model).values())
    before = structure(model)
    assert structure(normalized(option(), model, (3, 224, 224))) == before


@pytest.mark.parametrize(
    ("name", "own"),
    [pytest.param("efficientnet_lite0", 49, marks=pytest.mark.slow), ("vit_tiny_patch16_224", 25), ("resnet10t", 14)],
)
def test_models_of_timm(name, own):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    assert len(norms(model)) == own
    activations = [type(module) for module in model.modules() if isinstance(module, (nn.ReLU, nn.ReLU6, nn.GELU))]
    normalized(GroupNormalization(), model, (3, 224, 224))
    assert len(norms(model)) == own + len(hosts(model))
    assert all(type(norm) is nn.GroupNorm for norm in norms(model).values())
    assert [type(module) for module in model.modules() if isinstance(module, (nn.ReLU, nn.ReLU6, nn.GELU))] == activations


class OwnRMSNorm(nn.Module):
    """As language models have it, of no class of torch's."""

    def __init__(self, features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return self.weight * x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt()


def test_a_norm_layer_of_somebodys_own_is_known_by_its_name_and_its_vectors():
    model = nn.Sequential(nn.Linear(6, 8), OwnRMSNorm(8), nn.ReLU(), nn.Linear(8, 2))
    normalized(LayerNormalization(), model, (4, 6))
    assert type(model[1]) is nn.LayerNorm and not hosts(model) and model(torch.randn(3, 4, 6)).shape == (3, 4, 2)


class OwnChannelNorm(nn.Module):
    """A norm of somebody's own over the features in dimension 1."""

    def __init__(self, features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return self.weight[:, None] * x * x.square().mean(1, keepdim=True).add(1e-6).rsqrt()


@pytest.mark.parametrize(("option", "kind"), [(BatchNormalization, nn.BatchNorm1d), (GroupNormalization, nn.GroupNorm)])
def test_a_norm_layer_of_somebodys_own_behind_a_convolution_over_time(option, kind):
    model = nn.Sequential(nn.Conv1d(3, 8, 3), OwnChannelNorm(8), nn.ReLU(), nn.Flatten(), nn.Linear(80, 2))
    normalized(option(), model, (3, 12))
    assert type(model[1]) is kind and not hosts(model) and model(torch.randn(4, 3, 12)).shape == (4, 2)


@pytest.mark.parametrize("option", [BatchNormalization, RMSNormalization, NoNormalization])
def test_torchs_transformer_calls_the_norms_in_evaluations_too(option):
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(32, 2))
    normalized(option(), model, (4, 8)).eval()
    x = torch.randn(3, 4, 8)
    with torch.no_grad():
        fast = model(x)
    torch.testing.assert_close(fast, model(x).detach())
