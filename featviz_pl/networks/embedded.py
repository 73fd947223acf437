"""The network that ships with the library, so that the first picture needs no download.

A small residual network trained adversarially by ``examples/train_embedded_network.py``: robust networks have features
that people recognise. `EMBEDDED_CARD.md` beside this file is its model card.
"""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Add two convolutions to a shortcut; halve the resolution first when `stride` is 2.

    The strided convolution is 4 x 4: a kernel that its stride divides covers every pixel equally often, so its gradient
    draws no checkerboard.

    Shape:
        (N, inputs, H, W) -> (N, outputs, H // stride, W // stride)
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        first = (
            nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
            if stride == 2
            else nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        )
        self.residual = nn.Sequential(
            first,
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            pool: list[nn.Module] = [nn.AvgPool2d(stride)] if stride != 1 else []
            self.shortcut = nn.Sequential(*pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of shortcut and residual."""
        y: Tensor = self.activation(self.shortcut(x) + self.residual(x))
        return y


class EmbeddedNetwork(nn.Module):
    """Classify small photos into ten classes with a stem, five residual blocks and a linear layer.

    Shape:
        (N, 3, H, W), standardised -> (N, classes)
    """

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(nn.Conv2d(3, w, 6, 2, 2, bias=False), nn.BatchNorm2d(w), nn.SiLU())
        self.blocks = nn.Sequential(
            ResidualBlock(w, w),
            ResidualBlock(w, 2 * w, 2),
            ResidualBlock(2 * w, 4 * w, 2),
            ResidualBlock(4 * w, 4 * w),
            ResidualBlock(4 * w, 6 * w, 2),
        )
        self.logits = nn.Linear(6 * w, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class logits."""
        y: Tensor = self.logits(self.blocks(self.stem(x)).mean((2, 3)))
        return y
