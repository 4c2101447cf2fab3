from torch import nn

from plugins.init.xavier_normal import XavierNormalInit
from tests.plugins.init.scaled import ScaledInit


class TestXavierNormal(ScaledInit):
    plugin, uniform = XavierNormalInit, False

    def variance(self, inputs, outputs):
        return 2 / (inputs + outputs)

    def draw(self, weight, generator):
        nn.init.xavier_normal_(weight, generator=generator)
