from recipes.models.resnet34 import ResNet34
from tests.recipes.models.with_small_stem import WithSmallStem


class TestResNet34(WithSmallStem):
    model, name = ResNet34, "resnet34"
