import pytest
import torch
from torch import nn
from torch.nn import functional

from plugins.base import RecipeError, Setting, Task
from plugins.regularizer.spatial_dropout import SpatialDropout, SpatialDropoutLayer, spatial_dropout
from recipes.models.cnn import CNN
from recipes.models.dgcnn import DGCNN
from recipes.models.mlp import MLP
from recipes.models.resnet18 import ResNet18


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("shape", "theirs"),
    [((8, 6, 9), functional.dropout1d), ((8, 6, 4, 5), functional.dropout2d), ((8, 6, 3, 4, 2), functional.dropout3d)],
)
def test_equals_torch(p, shape, theirs):
    x = torch.randn(shape)
    torch.manual_seed(3)
    expected = theirs(x, p)
    torch.manual_seed(3)
    torch.testing.assert_close(spatial_dropout(x, p), expected)


def test_each_sample_loses_channels_of_its_own():
    layer = SpatialDropoutLayer(0.3)
    found = layer(torch.ones(200, 50, 3, 3))
    dropped = found[:, :, 0, 0] == 0
    assert torch.equal(found == 0, dropped[:, :, None, None].expand_as(found))
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.02) and len(dropped.unique(dim=0)) == 200
    assert layer.eval()(found) is found


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 1, 1)])
def test_leaves_alone_what_has_no_places(shape):
    x = torch.randn(shape)
    assert SpatialDropoutLayer(0.9)(x) is x


def test_zero_is_the_same_tensor():
    x = torch.randn(4, 5, 2)
    assert spatial_dropout(x, 0.0) is x


def placed(model, shape):
    plugin = SpatialDropout(p=0.2)
    plugin.prepare(Setting(shape, (Task("", "classification", 3),)))
    model = plugin.transform_model(model)
    return [name.rpartition(".")[0] for name, part in model.named_modules() if isinstance(part, SpatialDropoutLayer)]


def test_where_it_acts():
    assert placed(CNN((1, 8, 8), 3, (4, 8), 16), (1, 8, 8)) == ["1", "4"]
    assert placed(ResNet18((1, 8, 8), 3), (1, 8, 8)) == [
        "relu", *(f"layer{stage}.{block}.relu" for stage in (1, 2, 3) for block in (0, 1)),
    ]  # fmt: skip
    points = DGCNN((16, 2), 3, k=4, channels=(4, 4), width=8, hidden=(4,))
    assert placed(points, (16, 2)) == ["layers.0.activation", "layers.1.activation", "activation"]
    assert placed(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), (3, 6)) == ["1"]


def test_a_model_without_convolutions_is_refused():
    with pytest.raises(RecipeError, match="no hidden activation in MLP on which regularizer/spatial_dropout could act"):
        placed(MLP((1, 8, 8), 3), (1, 8, 8))
