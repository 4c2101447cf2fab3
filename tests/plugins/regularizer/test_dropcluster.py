import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from plugins.base import Refusal, Setting, Task
from plugins.inputs import Entry
from plugins.regularizer.dropcluster import (
    Clusters,
    DropCluster,
    DropClusterLayer,
    centre_rate,
    clusters_of,
    counted,
    drop_points,
)
from recipes.models.dgcnn import DGCNN
from recipes.models.mlp import MLP
from recipes.models.pointnet import PointNet
from tests.plugins.regularizer.compiling import compile_and_fit


def clouds(samples=6, points=30):
    """Points, of which a mask leaves some out."""
    there = torch.arange(points) < torch.randint(8, points + 1, (samples, 1))
    return torch.randn(samples, 3, points), there


@pytest.mark.parametrize("k", [1, 5])
def test_the_dropped_set_is_that_of_the_nearest_neighbours_of_centres(k):
    points, there = clouds()
    index, within = clusters_of(points, there, k)
    centres = torch.rand(there.shape) < 0.2
    dropped = counted(index, within & centres.unsqueeze(-1)) > 0
    for cloud, known, chosen, found in zip(points, there, centres, dropped, strict=True):
        coordinates = cloud.T[known].numpy()  # those that there are come first
        nearest = NearestNeighbors(n_neighbors=k).fit(coordinates).kneighbors(coordinates, return_distance=False)
        expected = np.unique(nearest[(chosen & known)[known].numpy()])
        assert found.nonzero().flatten().tolist() == expected.tolist()


def test_a_point_is_a_member_of_its_own_cluster_also_beside_its_like():
    points = torch.zeros(1, 2, 5)
    index, _ = clusters_of(points, torch.ones(1, 5, dtype=torch.bool), 2)
    assert torch.equal(index[0, :, 0], torch.arange(5))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("k", [1, 8, 100])
def test_the_share_is_p_in_expectation(p, k):
    points, there = clouds()
    index, within = clusters_of(points, there, k)
    members = counted(index, within)
    rate = centre_rate(p, members, there)
    stays = (1 - rate.unsqueeze(1).double()) ** members  # if no centre has it as a member
    torch.testing.assert_close((stays * there).sum(1) / there.sum(1), torch.full((6,), 1 - p).double(), rtol=1e-5, atol=1e-5)
    draws = torch.rand(3000, *there.shape) < rate.unsqueeze(1)
    shares = [((counted(index, within & draw.unsqueeze(-1)) > 0).sum() / there.sum()).item() for draw in draws[:300]]
    assert np.mean(shares) == pytest.approx(p, abs=4 * np.std(shares) / 300**0.5 + 0.02)


def test_what_is_kept_is_multiplied_by_all_over_kept():
    there = torch.tensor([[True] * 6, [True] * 3 + [False] * 3, [True] * 6])
    dropped = torch.tensor([[True, False, False, True, False, False], [False, True] + [False] * 4, [True] * 6])
    x = torch.randn(3, 2, 6, 4)
    found = drop_points(x, dropped, there)
    torch.testing.assert_close(found[0], x[0] * 1.5 * ~dropped[0][:, None])
    torch.testing.assert_close(found[1, :, :3], x[1, :, :3] * 1.5 * ~dropped[1, :3, None])
    assert not found[2].any()


SHAPE = {"points": Entry((24, 2), "float32"), "mask": Entry((24,), "bool")}
MODELS = {
    "pointnet": (lambda shape: PointNet(shape, 3, (4, 8), (4,)), ["layers.0.relu", "layers.1.relu"]),
    "dgcnn": (
        lambda shape: DGCNN(shape, 3, k=4, channels=(4, 4), width=8, hidden=(4,)),
        ["layers.0.activation", "layers.1.activation", "activation"],
    ),
}


def placed(model, shape, **arguments):
    plugin = DropCluster(**arguments)
    plugin.prepare(Setting(shape, (Task("", "classification", 3),)))
    return plugin.transform_model(model)


@pytest.mark.parametrize("shape", [(24, 2), SHAPE], ids=["tensor", "mask"])
@pytest.mark.parametrize(("make", "places"), MODELS.values(), ids=MODELS)
def test_acts_on_the_features_of_points(make, places, shape):
    model = placed(make(shape), shape, p=0.5, neighbours=2)
    assert [name.rpartition(".")[0] for name, part in model.named_modules() if isinstance(part, DropClusterLayer)] == places
    x = torch.randn(5, 24, 2)
    inputs = (
        x if isinstance(shape, tuple) else {"points": x, "mask": torch.arange(24) < torch.tensor([[24], [3], [1], [9], [0]])}
    )
    seen = []
    host = model.get_submodule(places[0])
    host.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for _ in range(20):  # in one pass none may be dropped, or all
        model(inputs)
    gone = [(found.flatten(3) if found.ndim > 3 else found).abs().sum(1).view(5, 24, -1).sum(2) == 0 for found in seen]
    assert any(0 < each[0].sum() < 24 for each in gone)  # all features of a point, or none
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    assert torch.equal(model(inputs), model(inputs))
    torch.testing.assert_close(model(inputs), loaded(make(shape), model).eval()(inputs))


def loaded(model, other):
    model.load_state_dict(other.state_dict(), strict=False)
    return model


def test_all_may_be_dropped():
    clusters = Clusters(PointNet((24, 2), 3, (4,), (4,)), 1.0, 3)
    clusters(torch.randn(2, 24, 2))
    assert not DropClusterLayer(clusters)(torch.ones(2, 4, 24)).any()


@pytest.mark.slow
def test_compiled_it_is_compiled_once():
    model = PointNet((24, 2), 3, (4, 8), (4,))
    module, graphs = compile_and_fit(model, DropCluster(0.3, 4), shape=(24, 2))
    assert graphs[0] >= 1 and graphs[-1] == graphs[1]
    assert all(value.isfinite().all() for value in module.model.parameters())


def test_a_model_that_knows_no_points_is_refused():
    for model in (MLP((24, 2), 3), nn.Linear(2, 3)):
        with pytest.raises(Refusal, match=f"{type(model).__name__} knows none: type data=points model=pointnet"):
            placed(model, (24, 2))
