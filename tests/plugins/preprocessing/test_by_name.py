"""Of several inputs by name those that are numbers are prepared, and places that a mask leaves out are in no statistic."""

import numpy as np
import pytest
import torch
from torch import nn

from plugins.base import Refusal, Selection, Setting
from plugins.inputs import Entry
from plugins.preprocessing.center import CenterInputs
from plugins.preprocessing.minmax import MinMaxInputs
from plugins.preprocessing.standardize import StandardizeInputs
from recipes.models.rnn import RecurrentModel

SHAPE = {
    "steps": Entry((6, 3), "float32"),
    "there": Entry((6,), "bool"),
    "tokens": Entry((4,), "int64", 9, 0),
    "age": Entry((), "float32"),
    "image": Entry((2, 5, 5), "uint8"),
}


def samples(count):
    there = torch.arange(6) < torch.randint(0, 7, (count, 1))
    there[0] = False
    numbers = {
        "steps": 5 + 3 * torch.randn(count, 6, 3),
        "age": 40 + 9 * torch.randn(count),
        "image": torch.rand(count, 2, 5, 5),
    }
    return {**numbers, "there": there, "tokens": torch.randint(10, (count, 4))}


def fitted(plugin, x, pieces=(1, 7, 22)):
    parts = zip(*(value.split(pieces) for value in x.values()), strict=True)
    found = [dict(zip(x, part, strict=True)) for part in parts]
    plugin.prepare(Setting(SHAPE, (), training_inputs=lambda: iter(found)))
    return plugin.transform_model(nn.Identity())


@pytest.mark.parametrize("kind", [StandardizeInputs, CenterInputs])
def test_equals_numpy(kind):
    x, other = samples(30), samples(4)
    layer = fitted(kind(), x)
    found = layer(other)
    kept = x["steps"][x["there"]].numpy().astype(float)
    expected = {
        "steps": (kept, 0),
        "age": (x["age"].numpy().astype(float), 0),
        "image": (x["image"].numpy().astype(float), (0, 2, 3)),
    }
    for name, (values, axes) in expected.items():
        mean, deviation = values.mean(axes, keepdims=True), values.std(axes, keepdims=True)
        wanted = (other[name].numpy() - mean) / (deviation if kind is StandardizeInputs else 1)
        if name == "steps":
            wanted[~other["there"].numpy()] = 0
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert found["tokens"] is other["tokens"] and found["there"] is other["there"] and other.keys() == found.keys()


def test_what_a_mask_leaves_out_may_be_anything():
    x = samples(30)
    spoiled = {**x, "steps": x["steps"].masked_fill(~x["there"][..., None], torch.nan)}
    one, other = fitted(StandardizeInputs(), x), fitted(StandardizeInputs(), spoiled)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert torch.equal(one(x)["steps"], other(spoiled)["steps"])


def test_a_loaded_run_has_the_numbers_of_its_checkpoint():
    x, plugin = samples(30), StandardizeInputs()
    trained = fitted(StandardizeInputs(), x)
    plugin.prepare(Setting(SHAPE, ()))
    loaded = plugin.transform_model(nn.Identity())
    loaded.load_state_dict(trained.state_dict())
    assert all(torch.equal(value, trained(x)[name]) for name, value in loaded(x).items())


@pytest.mark.parametrize("kind", [StandardizeInputs, CenterInputs])
def test_inputs_of_which_none_is_a_number_are_refused(kind):
    setting = Setting({name: SHAPE[name] for name in ("tokens", "there")}, ())
    plugin = kind()
    with pytest.raises(
        Refusal, match=r"preprocessing/\w+ takes inputs that are numbers, and none of these is \(tokens, there\)"
    ):
        plugin.check(Selection((plugin,), setting))


@pytest.mark.parametrize("kind", [StandardizeInputs, CenterInputs, MinMaxInputs])
@pytest.mark.parametrize("name", ["mask", "valid"])
def test_a_mask_of_floats_stays_as_it_is(kind, name):
    """Also one of another name, which the model tells."""
    shape = {"steps": Entry((6, 3), "float32"), name: Entry((6,), "float32")}
    x = {"steps": 5 + 3 * torch.randn(20, 6, 3), name: torch.ones(20, 6)}
    x[name][:, 4:] = torch.randint(0, 2, (20, 2)).float()
    spoiled = {**x, "steps": x["steps"].masked_fill(x[name][..., None] == 0, 1e6)}
    found = []
    for given in (x, spoiled):
        plugin, model = kind(), RecurrentModel(shape, 3, hidden=4, mask=name)
        plugin.prepare(Setting(shape, (), training_inputs=lambda given=given: iter([given])))
        found.append(plugin.transform_model(model).transform(given))
        assert found[-1][name] is given[name] and found[-1].keys() == given.keys()
    assert torch.equal(found[0]["steps"], found[1]["steps"])


@pytest.mark.parametrize("kind", [StandardizeInputs, CenterInputs, MinMaxInputs])
def test_a_training_is_the_same_whatever_kind_of_numbers_a_mask_has(kind):
    mask = torch.arange(6) < torch.randint(1, 7, (40, 1))
    steps, targets, trained = 5 + 3 * torch.randn(40, 6, 3), torch.randint(3, (40,)), []
    for dtype in (torch.bool, torch.float32):
        shape = {"steps": Entry((6, 3), "float32"), "mask": Entry((6,), str(dtype).removeprefix("torch."))}
        x, plugin = {"steps": steps, "mask": mask.to(dtype)}, kind()
        torch.manual_seed(0)
        model = RecurrentModel(shape, 3, hidden=4)
        plugin.prepare(Setting(shape, (), training_inputs=lambda x=x: iter([x])))
        whole = plugin.transform_model(model)
        optimizer = torch.optim.SGD(whole.parameters(), 0.5)
        before = model.head.weight.detach().clone()
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(whole(x), targets).backward()
            optimizer.step()
        assert not torch.equal(model.head.weight, before) and len(whole(x).unique(dim=0)) > 1
        trained.append(whole.state_dict())
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
