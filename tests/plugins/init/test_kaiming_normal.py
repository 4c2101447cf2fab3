from torch import nn

from plugins.init.kaiming_normal import KaimingNormalInit
from tests.plugins.init.scaled import ScaledInit


class TestKaimingNormal(ScaledInit):
    plugin, uniform = KaimingNormalInit, False

    def variance(self, inputs, outputs):
        return 2 / inputs

    def draw(self, weight, generator):
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
