import pytest
import torch
from torch import nn

from plugins.base import RecipeError, Refusal, Selection, Setting, Task
from plugins.inputs import Entry
from plugins.preprocessing.standardize import StandardizeInputs
from plugins.regularizer.dropout import Dropout
from plugins.regularizer.input_dropout import InputDropout, InputDropoutLayer
from recipes.engine.module import RecipeModule
from recipes.models.pointnet import PointNet
from recipes.models.rnn import RecurrentModel

CLASSES = (Task("", "classification", 3),)


def built(model, setting, *plugins):
    module = RecipeModule(model, nn.functional.cross_entropy, torch.optim.SGD)
    module.build(plugins, setting, devices=1)
    return module.model.train()


def test_equals_torch():
    x = torch.randn(64, 3, 5)
    torch.manual_seed(3)
    expected = nn.functional.dropout(x, 0.2)
    torch.manual_seed(3)
    layer = InputDropoutLayer(0.2)
    torch.testing.assert_close(layer(x), expected)
    assert layer.eval()(x) is x


class Seeing(nn.Identity):
    """Remembers what it is given."""

    def forward(self, x):
        self.seen = x
        return x


@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Sequential(Seeing()), nn.Linear(6, 3)), lambda: Own(Seeing())])
def test_drops_once_what_the_model_sees_behind_the_preprocessing(make):
    x = torch.rand(2000, 6) * 5 + 3
    setting = Setting((6,), CLASSES, training_inputs=lambda: iter([x]))
    model = make()
    names = dict(model.named_parameters()).keys()
    whole = built(
        model, setting, InputDropout(0.3), StandardizeInputs(), Dropout(0.5, sites=["first" if type(model) is Own else "0"])
    )
    seen = next(part for part in model.modules() if isinstance(part, Seeing))
    whole(x)
    standardized = (x - x.mean(0)) / x.std(0, correction=0)
    kept = seen.seen != 0
    torch.testing.assert_close(seen.seen[kept], standardized[kept] / 0.7, rtol=1e-4, atol=1e-4)
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert dict(model.named_parameters()).keys() == names
    whole.eval()(x)
    torch.testing.assert_close(seen.seen, standardized, rtol=1e-4, atol=1e-4)


class Own(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.first, self.head = first, nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)))


@pytest.mark.parametrize(
    "make", [lambda shape: PointNet(shape, 3, (4,), (4,)), lambda shape: RecurrentModel(shape, 3, hidden=4)]
)
def test_of_inputs_by_name_floats_are_dropped_and_not_their_mask(make):
    shape = {"points": Entry((20, 2), "float32"), "mask": Entry((20,), "float32")}
    model = built(make(shape), Setting(shape, CLASSES), InputDropout(0.5))
    layer = model.input_dropout
    given = {"points": torch.ones(50, 20, 2), "mask": torch.ones(50, 20), "number": torch.ones(50, dtype=torch.long)}
    found = layer(given)
    assert found["mask"] is given["mask"] and found["number"] is given["number"]
    assert found["points"].unique().tolist() == [0, 2]
    model(given)


def test_a_share_of_the_training_holds_for_inputs_by_name_too():
    shape = {"points": Entry((20, 2), "float32"), "mask": Entry((20,), "bool")}
    model = built(PointNet(shape, 3, (4,), (4,)), Setting(shape, CLASSES), InputDropout(0.5, when=(0, 0.5)))
    given = {"points": torch.ones(5, 20, 2), "mask": torch.ones(5, 20, dtype=torch.bool)}
    assert (model.input_dropout(given)["points"] == 0).any()
    model.input_dropout.acting.fill_(False)
    assert torch.equal(model.input_dropout(given)["points"], given["points"])


def test_stands_in_front_of_a_model_compiled_or_not():
    for model, host in ((Own(nn.Identity()), ""), (torch.compile(Own(nn.Identity()), backend="eager"), "_orig_mod.")):
        plugin = InputDropout(0.4)
        plugin.prepare(Setting((6,), CLASSES))
        plugin.transform_model(model)
        assert [name for name, part in model.named_modules() if isinstance(part, InputDropoutLayer)] == [f"{host}input_dropout"]


def test_refuses():
    shared = nn.ReLU()
    plugin = InputDropout()
    plugin.prepare(Setting((6,), CLASSES))
    with pytest.raises(RecipeError, match=r"ReLU, which sees the inputs first, is called elsewhere too.*nn.Identity\(\)"):
        plugin.transform_model(nn.Sequential(shared, nn.Linear(6, 4), shared, nn.Linear(4, 3)))
    with pytest.raises(RecipeError, match="in evaluation mode"):
        plugin.transform_model(nn.Linear(6, 3).eval())
    masked = {"tokens": Entry((7,), "int64"), "mask": Entry((7,), "float32")}
    for setting in (
        Setting((7,), CLASSES, tokens=True),
        Setting({"tokens": Entry((7,), "int64")}, CLASSES),
        Setting(masked, CLASSES),
    ):
        with pytest.raises(Refusal, match="regularizer/input_dropout drops inputs that are quantities"):
            plugin.check(Selection([], setting))
