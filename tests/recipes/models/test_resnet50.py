from recipes.models.resnet50 import ResNet50
from tests.recipes.models.with_small_stem import WithSmallStem


class TestResNet50(WithSmallStem):
    model, name = ResNet50, "resnet50"
