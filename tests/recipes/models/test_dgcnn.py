import pytest
import torch
import torch.nn.functional as F

from plugins.base import RecipeError
from plugins.inputs import Entry
from recipes.models.dgcnn import DGCNN, edges, nearest

SMALL = {"k": 3, "channels": [6, 8], "width": 10, "hidden": [7]}
SHAPE = {"points": Entry((9, 3), "float32"), "mask": Entry((9,), "bool")}


def with_statistics(model):
    """The model in evaluation mode, with running statistics that are not those of the start."""
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(value, 0.5, 2)
    return model.eval()


def activated(layer, rows):
    h = F.batch_norm(rows, layer.running_mean, layer.running_var, layer.weight, layer.bias)
    return torch.where(h > 0, h, 0.2 * h)


def neighbours_by_hand(points, k):
    """For each point the numbers of those that are nearest to it, by sorted distances."""
    points = points.detach()
    return [
        sorted(range(len(points)), key=lambda j: float(((points[i] - points[j]) ** 2).sum()))[:k] for i in range(len(points))
    ]


def by_hand(model, points, k=3):
    """What the model gives for the points of one sample."""
    h, found = points, []
    for layer in model.layers:
        rows = []
        for i, others in enumerate(neighbours_by_hand(h, k)):
            pairs = torch.stack([torch.cat([h[i], h[j] - h[i]]) for j in others])
            rows.append(activated(layer.norm.norm, pairs @ layer.linear.weight[:, :, 0, 0].T).max(0).values)
        h = torch.stack(rows)
        found.append(h)
    h = activated(model.norm.norm, torch.cat(found, 1) @ model.linear.weight[:, :, 0].T)
    linear, norm, _, last = model.head
    return last(activated(norm, linear(torch.cat([h.max(0).values, h.mean(0)])[None])))[0]


def masked(samples=5):
    mask = torch.rand(samples, 9) < 0.6
    mask[:, :3] = True
    mask[0, 1:] = False  # fewer points than neighbours
    return {"points": torch.randn(samples, 9, 3, dtype=torch.float64), "mask": mask}


def test_neighbours_and_edges_by_loops():
    x = torch.randn(4, 2, 8, dtype=torch.float64)
    found = nearest(x, 3, None)
    features = edges(x, found)
    for sample in range(4):
        points = x[sample].T
        assert found[sample].tolist() == neighbours_by_hand(points, 3)
        for i in range(8):
            assert found[sample, i, 0] == i
            for place, j in enumerate(found[sample, i]):
                expected = torch.cat([points[i], points[j] - points[i]])
                assert torch.equal(features[sample, :, i, place], expected)


def test_written_out():
    model, x = with_statistics(DGCNN((9, 3), 4, **SMALL).double()), torch.randn(5, 9, 3, dtype=torch.float64)
    torch.testing.assert_close(model(x), torch.stack([by_hand(model, points) for points in x]))


def test_with_a_mask_the_points_that_there_are():
    model, x = with_statistics(DGCNN(SHAPE, 4, **SMALL).double()), masked()
    expected = torch.stack([by_hand(model, points[kept]) for points, kept in zip(x["points"], x["mask"], strict=True)])
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_points_changes_nothing(training):
    model, x = DGCNN((9, 3), 4, **SMALL).double().train(training), torch.randn(5, 9, 3, dtype=torch.float64)
    order = torch.randperm(9)
    torch.testing.assert_close(model(x[:, order]), model(x), rtol=1e-6, atol=1e-6)
    named, y = DGCNN(SHAPE, 4, **SMALL).double().train(training), masked()
    turned = {name: value[:, order] for name, value in y.items()}
    torch.testing.assert_close(named(turned), named(y), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_what_the_mask_leaves_out_changes_nothing(training):
    model, x = DGCNN(SHAPE, 4, **SMALL).double().train(training), masked()
    found = model(x)
    other = x["points"].masked_fill(~x["mask"].unsqueeze(-1), torch.nan)
    assert torch.equal(model({"points": other, "mask": x["mask"].float()}), found)
    assert all(torch.isfinite(value).all() for value in model.buffers())


def test_statistics_are_of_the_edges_that_there_are():
    model, x = DGCNN(SHAPE, 4, **SMALL).double().train(), masked()
    model(x)
    rows = []
    for points, kept in zip(x["points"], x["mask"], strict=True):
        there = points[kept]
        rows += [
            torch.cat([there[i], there[j] - there[i]]) for i, found in enumerate(neighbours_by_hand(there, 3)) for j in found
        ]
    layer = model.layers[0]
    mean = (torch.stack(rows) @ layer.linear.weight[:, :, 0, 0].T).mean(0)
    torch.testing.assert_close(layer.norm.norm.running_mean, 0.1 * mean)


def test_a_sample_without_a_point_is_finite():
    model, x = DGCNN(SHAPE, 4, **SMALL).double(), masked()
    x["mask"][2] = False
    found = model(x)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_sizes_are_those_of_the_paper():
    weights = [
        layer.weight.shape[:2] for layer in DGCNN((100, 3), 40).modules() if hasattr(layer, "weight") and layer.weight.ndim > 1
    ]
    assert weights == [(64, 6), (64, 128), (128, 128), (256, 256), (1024, 512), (512, 2048), (256, 512), (40, 256)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 8, 8)}, "data for model=dgcnn must be points .points, coordinates. of floats"),
        ({"shape": {"tokens": Entry((6,), "int64", 9, 0)}}, "data for model=dgcnn must be points .*, got 'int64 .6,.'"),
        ({"k": 0}, "model.k must be a whole number ≥ 1"),
        ({"k": 10}, "model.k must be at most 9, the number of points, got 10"),
        ({"channels": []}, "model.channels must be at least one"),
        ({"channels": [0]}, "model.channels must be"),
        ({"width": 0}, "model.width must be"),
        ({"hidden": [0]}, "model.hidden must be"),
        ({"mask": "there"}, "model.mask must be the name of an input"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message) as refusal:
        DGCNN(**{"shape": SHAPE, "outputs": 2, **SMALL, **arguments})
    assert "\n" not in str(refusal.value)
