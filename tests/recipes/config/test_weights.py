import pytest

from recipes.config.catalogue import Catalogue
from recipes.config.composing import compose, finish

WITH = ["model=torchvision", "model.name=resnet18", "model.weights=DEFAULT"]


def preprocessing(*words):
    return finish(Catalogue(), compose(words), words)["preprocessing"]["_target_"].rpartition(".")[2]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (WITH, "PretrainedInputs"),
        (["model=timm", "model.name=test_vit", "model.weights=true"], "PretrainedInputs"),
        (["model=timm", "model.name=test_vit", "model.weights=false"], "StandardizeInputs"),
        (WITH[:2], "StandardizeInputs"),
        ([*WITH, "preprocessing=standardize"], "StandardizeInputs"),
        ([*WITH, "preprocessing.eps=0.1"], "StandardizeInputs"),
        ([*WITH, "preprocessing=none"], "NoPreprocessing"),
        (["preprocessing=pretrained"], "PretrainedInputs"),
    ],
)
def test_weights_choose_their_inputs_unless_somebody_does(words, kind):
    assert preprocessing(*words) == kind
