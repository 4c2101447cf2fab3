from torch import nn

from plugins.init.lecun_normal import LecunNormalInit
from tests.plugins.init.scaled import ScaledInit


class TestLecunNormal(ScaledInit):
    """Lecture B: w = np.random.randn(n) / sqrt(n)."""

    plugin, uniform = LecunNormalInit, False

    def variance(self, inputs, outputs):
        return 1 / inputs

    def draw(self, weight, generator):
        nn.init.normal_(weight, 0, weight[0].numel() ** -0.5, generator=generator)
