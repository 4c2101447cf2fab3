import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from plugins.base import Refusal, Selection, Setting, Task
from plugins.regularizer.patch_dropout import PatchDropout, PatchDropoutLayer, drop_patches
from recipes.engine.module import RecipeModule
from recipes.models.cnn import CNN

SETTING = Setting((3, 16, 16), (Task("", "classification", 3),))
SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}


def timms(**settings):
    return pytest.importorskip("timm.models.vision_transformer").VisionTransformer(**settings)


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.99])
def test_equals_timm(p, prefix):
    x = torch.randn(6, prefix + 16, 5)
    torch.manual_seed(3)
    expected = pytest.importorskip("timm").layers.PatchDropout(p, num_prefix_tokens=prefix).train()(x)
    torch.manual_seed(3)
    assert torch.equal(drop_patches(x, p, prefix), expected)


def test_each_sample_keeps_tokens_of_its_own_each_once():
    x = torch.arange(20.0).view(1, 20, 1).expand(50, 20, 3)
    found = drop_patches(x, 0.4)[:, :, 0]
    assert found.shape == (50, 12) and all(len(row.unique()) == 12 for row in found)
    assert len(found.sort(1).values.unique(dim=0)) > 40


def torchvision_net():
    model = TorchvisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # 0 at first
    return model


MODELS = {
    "torchvision": (torchvision_net, "encoder.dropout", 1),
    "timm": (lambda: timms(**SMALL), "pos_drop", 1),
    "without a class token": (lambda: timms(**SMALL, class_token=False, global_pool="avg"), "pos_drop", 0),
    "with registers": (lambda: timms(**SMALL, reg_tokens=4, no_embed_class=True), "pos_drop", 5),
}


def placed(model, **arguments):
    plugin = PatchDropout(**arguments)
    plugin.prepare(SETTING)
    return plugin.transform_model(model), plugin


@pytest.mark.parametrize(("make", "host", "prefix"), MODELS.values(), ids=MODELS)
def test_acts_behind_the_tokens_with_their_positions(make, host, prefix):
    model, plugin = placed(make(), p=0.5)
    layers = {name: part.prefix for name, part in model.named_modules() if isinstance(part, PatchDropoutLayer)}
    assert layers == {f"{host}.patch_dropout": prefix}
    assert plugin.remarks == [f"tokens of patches kept in training: 8 of 16, behind {host}"]
    widths, x = [], torch.randn(4, 3, 16, 16)
    norm = next(part for part in model.modules() if isinstance(part, nn.LayerNorm))
    norm.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[1]))
    assert not torch.equal(model(x), model(x)) and set(widths) == {8 + prefix}
    plain = make()
    plain.load_state_dict(model.state_dict())  # nothing of its own is saved
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))


def test_outside_of_its_share_of_the_training_all_tokens_are_there():
    module = RecipeModule(torchvision_net(), nn.functional.cross_entropy, torch.optim.SGD)
    module.build([PatchDropout(0.5, when=(0, 0.5))], SETTING, devices=1)
    x, layer = torch.randn(2, 17, 8), module.model.encoder.dropout.patch_dropout.train()
    assert layer(x).shape == (2, 9, 8)
    layer.acting.fill_(False)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CNN((3, 16, 16), 3),
        lambda: pytest.importorskip("timm.models.swin_transformer").SwinTransformer(
            img_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4, num_classes=3
        ),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Flatten(2), nn.Linear(16, 8), nn.Flatten(), nn.Linear(32, 3)),
    ],
    ids=["cnn", "swin", "tokens that keep their places"],
)
def test_models_without_tokens_that_may_be_gone_are_refused(make):
    with pytest.raises(
        Refusal, match="leaves tokens of patches out, and .* has none without which it runs: choose a vision transformer"
    ):
        placed(make())


def test_samples_that_are_no_images_are_refused():
    with pytest.raises(Refusal, match="the samples are no images"):
        PatchDropout().check(Selection([], Setting((7,), SETTING.tasks)))
