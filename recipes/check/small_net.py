"""The model of the sweeps over all options: it has whatever a technique looks for."""

from collections.abc import Sequence

from torch import Tensor, nn

from recipes.models.cnn import CNN


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch."""
        return x + self.branch(x)


class SmallNet(CNN):
    """model=cnn with a residual block behind the first pooling."""

    def __init__(
        self, shape: Sequence[int], outputs: int, channels: Sequence[int] = (4, 8), hidden: int = 16, activation: str = "relu"
    ) -> None:
        super().__init__(shape, outputs, channels, hidden, activation)
        self.insert(3, Residual(channels[0]))
