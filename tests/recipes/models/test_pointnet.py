import pytest
import torch
import torch.nn.functional as F

from plugins.base import RecipeError
from plugins.inputs import Entry
from recipes.models.pointnet import PointNet

SMALL = {"channels": [8, 16], "hidden": [12]}
SHAPE = {"points": Entry((9, 3), "float32"), "mask": Entry((9,), "bool")}


def with_statistics(model):
    """The model in evaluation mode, with running statistics that are not those of the start."""
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(value, 0.5, 2)
    return model.eval()


def normalized(layer, rows):
    return F.batch_norm(rows, layer.running_mean, layer.running_var, layer.weight, layer.bias).relu()


def by_hand(model, points):
    """What the model gives for the points of one sample."""
    features = []
    for point in points:
        h = point[None]
        for layer in model.layers:
            h = normalized(layer.norm.norm, h @ layer.linear.weight[:, :, 0].T)
        features.append(h[0])
    linear, norm, _, last = model.head
    return last(normalized(norm, linear(torch.stack(features).max(0).values[None])))[0]


def masked(samples=5):
    mask = torch.rand(samples, 9) < 0.6
    mask[:, 4] = True
    return {"points": torch.randn(samples, 9, 3), "mask": mask}


def test_layers_for_each_point_and_their_maximum():
    model, x = with_statistics(PointNet((9, 3), 4, **SMALL)), torch.randn(5, 9, 3)
    torch.testing.assert_close(model(x), torch.stack([by_hand(model, points) for points in x]))


def test_with_a_mask_the_points_that_there_are():
    model, x = with_statistics(PointNet(SHAPE, 4, **SMALL)), masked()
    expected = torch.stack([by_hand(model, points[kept]) for points, kept in zip(x["points"], x["mask"], strict=True)])
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_points_changes_nothing(training):
    model, x = PointNet((9, 3), 4, **SMALL).double().train(training), torch.randn(5, 9, 3, dtype=torch.float64)
    order = torch.randperm(9)
    torch.testing.assert_close(model(x[:, order]), model(x), rtol=1e-6, atol=1e-6)
    named, y = PointNet(SHAPE, 4, **SMALL).train(training), masked()
    turned = {name: value[:, order] for name, value in y.items()}
    torch.testing.assert_close(named(turned), named(y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_what_the_mask_leaves_out_changes_nothing(training):
    model, x = PointNet(SHAPE, 4, **SMALL).train(training), masked()
    found = model(x)
    other = x["points"].masked_fill(~x["mask"].unsqueeze(-1), torch.nan)
    assert torch.equal(model({"points": other, "mask": x["mask"].float()}), found)
    assert all(torch.isfinite(value).all() for value in model.buffers())


def test_statistics_are_of_the_points_that_there_are():
    model, x = PointNet(SHAPE, 4, **SMALL).train(), masked()
    model(x)
    rows = x["points"][x["mask"]] @ model.layers[0].linear.weight[:, :, 0].T
    torch.testing.assert_close(model.layers[0].norm.norm.running_mean, 0.1 * rows.mean(0))


def test_a_mask_that_leaves_nothing_out_is_as_none():
    model, x = PointNet(SHAPE, 4, **SMALL), torch.randn(5, 9, 3)
    twin = PointNet((9, 3), 4, **SMALL)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(model({"points": x, "mask": torch.ones(5, 9)}), twin(x))
    alone = PointNet({"points": SHAPE["points"]}, 4, **SMALL)
    alone.load_state_dict(model.state_dict())
    torch.testing.assert_close(alone({"points": x}), twin(x))


def test_a_sample_without_a_point_is_finite():
    model, x = PointNet(SHAPE, 4, **SMALL), masked()
    x["mask"][2] = False
    found = model(x)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_sizes_are_those_of_the_paper():
    weights = [
        layer.weight.shape[:2]
        for layer in PointNet((100, 3), 40).modules()
        if hasattr(layer, "weight") and layer.weight.ndim > 1
    ]
    assert weights == [(64, 3), (64, 64), (64, 64), (128, 64), (1024, 128), (512, 1024), (256, 512), (40, 256)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 8, 8)}, "data for model=pointnet must be points .points, coordinates. of floats, .*data.input=.points."),
        ({"shape": {"tokens": Entry((6,), "int64", 9, 0)}}, "data for model=pointnet must be points .*, got 'int64 .6,.'"),
        ({"shape": {"x": Entry((6, 3), "int64")}}, "got 'int64 .6, 3.'"),
        ({"channels": []}, "model.channels must be at least one"),
        ({"channels": [0]}, "model.channels must be"),
        ({"hidden": [0]}, "model.hidden must be"),
        ({"points": "cloud"}, "model.points must be the name of an input, one of points, mask; got cloud"),
        ({"shape": {**SHAPE, "mask": Entry((9, 3), "bool")}}, "one number for each place of points"),
        ({"shape": {**SHAPE, "colour": SHAPE["points"]}, "points": "points"}, "has no use for colour"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message) as refusal:
        PointNet(**{"shape": SHAPE, "outputs": 2, **arguments})
    assert "\n" not in str(refusal.value)
