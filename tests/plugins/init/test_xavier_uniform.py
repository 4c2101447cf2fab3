from torch import nn

from plugins.init.xavier_uniform import XavierUniformInit
from tests.plugins.init.scaled import ScaledInit


class TestXavierUniform(ScaledInit):
    plugin, uniform = XavierUniformInit, True

    def variance(self, inputs, outputs):
        return 2 / (inputs + outputs)

    def draw(self, weight, generator):
        nn.init.xavier_uniform_(weight, generator=generator)
