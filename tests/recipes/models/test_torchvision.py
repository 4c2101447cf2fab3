import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from plugins.base import RecipeError
from plugins.pretrained import pretrained_of
from recipes.models.torchvision import TorchvisionModel, load, make
from recipes.run.build import build_model

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts a state_dict where torch looks for downloaded weights; nothing else can be had."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def put(name, weights, state):
        torch.save(state, folder / models.get_model_weights(name)[weights].url.rpartition("/")[2])
        return state

    return put


@pytest.mark.parametrize("name", ["resnet34", "mobilenet_v3_small", "squeezenet1_0", "googlenet"])
def test_any_classifier_by_its_name(name):
    model = TorchvisionModel((3, 64, 64), 4, name=name)
    assert type(model) is type(models.get_model(name))
    x = torch.rand(2, 3, 64, 64)
    assert model.eval()(x).shape == (2, 4)
    assert model.train()(x).shape == (2, 4)  # no further outputs in training
    assert pretrained_of(model) is None


def test_a_transformer_of_windows_is_made_for_the_size_of_the_images():
    with torch.device("meta"):
        model = make("maxvit_t", (1, 448, 448), 4).eval()
        assert model(torch.rand(2, 1, 448, 448)).shape == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "did you mean resnet50?"),
        ({"name": None}, "model.name must be a classification model of torchvision.*got None"),
        ({"name": "fcn_resnet50"}, "model.name must be a classification model"),
        ({"shape": (9,)}, "data for model=torchvision must be images"),
        ({"name": "vit_b_16", "shape": (3, 24, 24)}, "takes no images of 24 × 24: Input shape indivisible by patch size"),
        ({"name": "vit_b_16", "shape": (3, 32, 16)}, "model.name=vit_b_16 takes square images, the data has 32 × 16"),
        ({"name": "maxvit_t", "shape": (3, 224, 448)}, "model.name=maxvit_t takes square images, the data has 224 × 448"),
        (
            {"name": "maxvit_t", "shape": (3, 100, 100)},
            "takes no images of 100 × 100: Input size .* is not divisible by partition size 7",
        ),
        (
            {"weights": "IMAGENET"},
            "model.weights of resnet18 must be one of IMAGENET1K_V1, DEFAULT, a file or the folder of a run, got 'IMAGENET'",
        ),
        ({"weights": "no/such/file.pth"}, "model.weights=no/such/file.pth is not there: give the folder of a run"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(RecipeError, match=message) as error:
        TorchvisionModel(**{"shape": (3, 32, 32), "outputs": 2, "name": "resnet18", **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", True])
def test_weights_by_name_are_those_of_all_but_the_output_layer(hub, weights):
    state = hub(SMALL, "DEFAULT", models.get_model(SMALL).state_dict())
    model = TorchvisionModel((3, 32, 32), 4, name=SMALL, weights=weights)
    taken = model.state_dict()
    assert all(torch.equal(taken[name], value) for name, value in state.items() if not name.startswith("fc."))
    assert isinstance(model.fc, nn.Linear) and model.fc.out_features == 4
    found = pretrained_of(model)
    torch.testing.assert_close(found.shift.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(1 / found.scale.flatten(), torch.tensor([0.229, 0.224, 0.225]))
    assert found.size == (224, 224)
    assert found.remarks[0] == f"weights IMAGENET1K_V1: 280 of 282 tensors of model.name={SMALL} are taken"
    assert "fc.weight (1000, 1024) where the model has (4, 1024)" in found.remarks[1]
    assert "trained on images of 224 × 224, the data has 32 × 32" in found.remarks[2]


def test_weights_are_left_where_others_take_their_place(hub):
    model = TorchvisionModel((3, 32, 32), 4, name=SMALL, weights="DEFAULT", load_weights=False)
    assert pretrained_of(model) is None


def test_those_of_inception_expect_inputs_around_zero(hub):
    state = models.get_model("googlenet", init_weights=False).state_dict()
    assert any(name.startswith("aux") for name in state)
    hub("googlenet", "DEFAULT", state)
    model = make("googlenet", (3, 32, 32), 4)
    found = load(model, "googlenet", "DEFAULT", (3, 32, 32))
    theirs = models.get_model("googlenet", init_weights=False, transform_input=True).eval()
    x = torch.rand(2, 3, 32, 32)
    preset = models.get_model_weights("googlenet").DEFAULT.transforms()
    usual = (x - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1)
    torch.testing.assert_close((x - found.shift) * found.scale, theirs._transform_input(usual))
    assert not any("aux" in remark for remark in found.remarks)


def test_a_download_that_fails_is_one_line(hub):
    with pytest.raises(RecipeError, match="model.weights=IMAGENET1K_V1 could not be downloaded: .*model.weights=FILE") as error:
        TorchvisionModel((3, 32, 32), 4, name=SMALL, weights="IMAGENET1K_V1")
    assert "\n" not in str(error.value)


def test_a_vision_transformer_takes_images_of_any_size(tmp_path, monkeypatch):
    small = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8, "patch_size": 16}
    theirs = models.VisionTransformer(image_size=64, num_classes=3, **small)
    nn.init.normal_(theirs.encoder.pos_embedding)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    model = models.VisionTransformer(image_size=32, num_classes=4, **small)
    load(model, "vit_b_16", str(tmp_path / "vit.pth"), (3, 32, 32))
    expected = interpolate_embeddings(32, 16, dict(theirs.state_dict()))["encoder.pos_embedding"]
    torch.testing.assert_close(model.encoder.pos_embedding.detach(), expected)
    whole = make("vit_b_32", (1, 64, 64), 3)
    assert whole.image_size == 64 and whole.conv_proj.in_channels == 1


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(tmp_path, channels):
    state = models.get_model(SMALL, num_classes=4).state_dict()
    torch.save(state, tmp_path / "a.pth")
    model = TorchvisionModel((channels, 32, 32), 4, name=SMALL, weights=str(tmp_path / "a.pth"))
    assert model.conv1[0].in_channels == channels and model(torch.rand(2, channels, 32, 32)).shape == (2, 4)
    assert f"images of 3 channels, the data has {channels}" in pretrained_of(model).remarks[1]
    assert pretrained_of(model).shift is None


def test_images_that_are_too_small_are_refused_before_training():
    config = {"model": {"_target_": "recipes.models.torchvision.TorchvisionModel", "name": "alexnet"}}
    with pytest.raises(
        RecipeError, match=r"samples of shape \(3, 16, 16\) do not pass through it, they may be too small"
    ) as error:
        build_model(config, (3, 16, 16), 2, 0)
    assert "\n" not in str(error.value)
