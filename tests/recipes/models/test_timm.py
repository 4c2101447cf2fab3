import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from plugins.base import RecipeError
from plugins.pretrained import pretrained_of
from recipes.models.timm import TimmModel

SHAPE = (3, 32, 32)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts a state_dict where the hub keeps what it has downloaded; nothing else can be had."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name, state):
        folder = tmp_path / f"models--timm--{name}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
        save_file(state, folder / "snapshots" / ("0" * 40) / "model.safetensors")
        return state

    return put


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_classifier_by_its_name(name, channels):
    model = TimmModel((channels, 32, 32), 4, name=name)
    assert type(model) is type(timm.create_model(name))
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 4)
    assert pretrained_of(model) is None


@pytest.mark.parametrize("weights", [True, "true", "DEFAULT", "r160_in1k", "test_resnet.r160_in1k"])
def test_weights_by_name_are_those_of_all_but_the_output_layer(hub, weights):
    state = hub("test_resnet.r160_in1k", timm.create_model("test_resnet").state_dict())
    model = TimmModel(SHAPE, 4, name="test_resnet", weights=weights)
    taken = model.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in state.items() if not name.startswith("fc."))
    found = pretrained_of(model)
    torch.testing.assert_close((found.shift.flatten(), found.scale.flatten()), (torch.full((3,), 0.5), torch.full((3,), 2.0)))
    assert found.remarks == (
        "weights test_resnet.r160_in1k: all tensors are taken, but for fc, drawn at random: it has 1,000 classes, the data 4",
        "the weights were trained on images of 160 × 160, the data has 32 × 32, and nothing resizes them: data.size=160 does so "
        "where data=image_folder",
    )


def test_a_model_with_the_name_of_its_weights(hub):
    hub("test_resnet.r160_in1k", timm.create_model("test_resnet").state_dict())
    assert pretrained_of(TimmModel((1, 160, 160), 1000, "test_resnet.r160_in1k", True)).remarks == (
        "weights test_resnet.r160_in1k: all tensors are taken",
        "the weights are for images of 3 channels, the data has 1: those of conv1.0 are summed over them",
    )
    assert pretrained_of(TimmModel(SHAPE, 4, "test_resnet.r160_in1k")) is None


def test_weights_are_left_where_others_take_their_place(hub):
    assert pretrained_of(TimmModel(SHAPE, 4, "test_resnet", True, load_weights=False)) is None


@pytest.mark.parametrize("weights", ["gone", "gone/run", "gone.pth"])
def test_weights_that_are_left_may_be_gone(hub, weights):
    """As those of a run are whose own were taken from a folder that was moved since."""
    model = TimmModel(SHAPE, 4, "test_resnet", weights, load_weights=False)
    assert pretrained_of(model) is None and model(torch.rand(2, *SHAPE)).shape == (2, 4)
    with pytest.raises(RecipeError, match="model.weights"):
        TimmModel(SHAPE, 4, "test_resnet", weights)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_files_of_other_sizes_and_outputs(tmp_path, name):
    theirs = timm.create_model(name, num_classes=4, **({"img_size": 64} if "vit" in name else {}))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    model = TimmModel((1, 32, 32), 4, name=name, weights=str(tmp_path / "a.pth"))
    head = model.get_classifier()
    assert torch.equal(head.weight, theirs.get_classifier().weight)
    total = sum(value.is_floating_point() for value in model.state_dict().values())
    remarks = pretrained_of(model).remarks
    assert remarks[0] == f"weights {tmp_path}/a.pth: {total} of {total} tensors of model.name={name} are taken"
    assert "summed over them" in remarks[1] and len(remarks) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "test_resnets"}, "model.name must be a model of timm; did you mean test_resnet?"),
        ({"name": None}, "model.name must be a model of timm.*, got None"),
        ({"name": 50}, "model.name must be a model of timm.*, got 50"),
        ({"shape": (9,)}, "data for model=timm must be images"),
        ({"weights": "imagenet"}, "must be one of true, r160_in1k, a file or the folder of a run, got 'imagenet'"),
        ({"weights": "no/such.pth"}, "model.weights=no/such.pth is not there: give the folder of a run"),
        ({"weights": True}, "model.weights=true of test_resnet could not be had for images .*, model.weights=FILE"),
        ({"name": "botnet50ts_256", "weights": True}, "timm has no weights of botnet50ts_256: leave model.weights out"),
        ({"name": "test_vit_relpos", "shape": (3, 8, 8)}, r"model.name=test_vit_relpos takes no images \(3, 8, 8\)"),
    ],
)
def test_refuses(hub, arguments, message):
    with pytest.raises(RecipeError, match=message) as error:
        TimmModel(**{"shape": SHAPE, "outputs": 2, "name": "test_resnet", **arguments})
    assert "\n" not in str(error.value)


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it was not installed
    with pytest.raises(RecipeError, match=r'model=timm needs a package of its own: pip install "lightning-recipes\[timm\]"'):
        TimmModel(SHAPE, 2, "resnet18")
