from torch import nn

from plugins.init.kaiming_uniform import KaimingUniform
from tests.plugins.init.scaled import ScaledInit


class TestKaimingUniform(ScaledInit):
    plugin, uniform = KaimingUniform, True

    def variance(self, inputs, outputs):
        return 2 / inputs

    def draw(self, weight, generator):
        nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)
