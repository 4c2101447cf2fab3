from torch import nn

from plugins.init.kaiming_uniform import KaimingUniformInit
from tests.plugins.init.scaled import ScaledInit


class TestKaimingUniform(ScaledInit):
    plugin, uniform = KaimingUniformInit, True

    def variance(self, inputs, outputs):
        return 2 / inputs

    def draw(self, weight, generator):
        nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
