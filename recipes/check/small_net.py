"""The model of the sweeps over all options: it has whatever a technique looks for."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recipes.models.cnn import CNN


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch."""
        return x + self.branch(x)


class Tokens(nn.Module):
    """The mean over the tokens of a map's places, each with its position, for all of them."""

    def __init__(self, channels: int, places: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Conv2d(channels, channels, 1), nn.Parameter(torch.zeros(places, channels))
        self.tokens, self.mix = nn.Identity(), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of one place (samples, channels, 1, 1)."""
        tokens = self.tokens(self.embedding(x).flatten(2).transpose(1, 2) + self.position)
        return self.mix(tokens).mean(1)[:, :, None, None]


class SmallNet(CNN):
    """model=cnn with residual blocks behind the first pooling, of convolutions and of tokens."""

    def __init__(
        self, shape: Sequence[int], outputs: int, channels: Sequence[int] = (4, 8), hidden: int = 16, activation: str = "relu"
    ) -> None:
        super().__init__(shape, outputs, channels, hidden, activation)
        first = channels[0]
        convolutions = [nn.Conv2d(first, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, first, 3, padding=1)]
        self.insert(3, Residual(nn.Sequential(*convolutions)))
        self.insert(4, Residual(Tokens(first, (shape[1] // 2) * (shape[2] // 2))))
