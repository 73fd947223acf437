"""Pictures that are a function of their coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from featviz_pl.images.latent import LatentImage, unpack
from featviz_pl.numerics.checks import size_pair, unknown, whole_number

_REACH = math.sqrt(3)  # coordinates from -sqrt(3) to sqrt(3) have variance 1
_CHUNK = 1 << 18  # points that are evaluated at a time, to bound the memory of large renderings
_ACTIVATIONS = ("composite", "unbiased", "relu")


class CPPNImage(LatentImage):
    """Optimize a network from coordinates to color for each picture: ``sigmoid(color @ network(x, y))``.

    A compositional pattern-producing network draws smooth, vector-like pictures, at any resolution (`pictures_at`). It
    starts from grey, since its last layer starts from zero. The usual optimizer is Adam at 0.005.

    The published activation has a mean: all its units move the whole picture together, and for some targets every pixel
    ends in one saturated color. ``"unbiased"`` has none, and climbs several times as high there.

    Hidden weights start from ``N(0, deviation / sqrt(inputs))`` and biases from zero, as in the article's notebook;
    Lucid's library draws biases from N(0, 0.1).

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width). The longer side spans coordinates from -sqrt(3)
            to sqrt(3); pixels are square.
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: see `LatentImage`; the source mixes none.
        deviation: scale of the first hidden weights, relative to the source's; more makes busier pictures.
        width: units of each hidden layer.
        depth: number of hidden layers.
        activation: ``"composite"``, the arc tangent and its square, with ``a = atan(x)``: ``(a / .67, a ** 2 / .6)``;
            ``"unbiased"``: ``(a / .67, (a ** 2 - .45) / .396)``; ``"relu"``: ``(max(x, 0) - .40) / .58``.
        tile: whether opposite borders continue each other. Coordinates are then sine and cosine along each axis, times
            sqrt(2) so that their variance is 1 as well, and each axis of the picture is one period.
        contrast: see `LatentImage`.

    Raises:
        ValueError: when an argument cannot work, and by `start_from`: a network that draws a given picture would have
            to be trained.

    Example:
        >>> image = CPPNImage(size=8, count=2)
        >>> image.initialize(2, torch.Generator().manual_seed(0))
        >>> image().unique().tolist(), image.pictures_at((64, 32)).shape
        ([0.5], torch.Size([2, 3, 64, 32]))

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        *,
        channels: int = 3,
        color: Any = "none",
        deviation: float = 1.0,
        width: int = 24,
        depth: int = 8,
        activation: Literal["composite", "unbiased", "relu"] = "composite",
        tile: bool = False,
        contrast: float | Literal["photos"] | None = None,
    ) -> None:
        super().__init__(size, channels=channels, color=color, deviation=deviation, contrast=contrast)
        self.width, self.depth = whole_number("width", width), whole_number("depth", depth)
        if activation not in _ACTIVATIONS:
            raise unknown("activation", "activation", str(activation), _ACTIVATIONS)
        self.activation, self.tile = activation, bool(tile)
        if count is not None:
            self.allocate(count)

    def layer_shapes(self) -> list[tuple[int, int]]:
        """Return (outputs, inputs + 1) of every layer; the last column is the bias."""
        hidden = self.width if self.activation == "relu" else 2 * self.width
        inputs = [4 if self.tile else 2, *[hidden] * self.depth]
        outputs = [*[self.width] * self.depth, self.channels]
        return [(after, before + 1) for after, before in zip(outputs, inputs)]

    def weight_shape(self) -> tuple[int, ...]:
        """Return (D,): all layers, the first one first; the same for every size."""
        return (sum(outputs * inputs for outputs, inputs in self.layer_shapes()),)

    def draw_weight(self, generator: torch.Generator) -> Tensor:
        """Draw the hidden weights; biases and the last layer are zero."""
        layers = []
        for outputs, inputs in self.layer_shapes():
            layer = torch.randn(outputs, inputs, generator=generator, dtype=torch.float32)
            layers.append(layer * self.deviation / math.sqrt(inputs - 1))
            layers[-1][:, -1] = 0.0
        layers[-1].zero_()
        return torch.cat([layer.flatten() for layer in layers])

    def scale_latent(self, scale: Tensor) -> None:
        """Scale the last layer, which is linear."""
        outputs, inputs = self.layer_shapes()[-1]
        self.required_weight()[:, -outputs * inputs :].mul_(scale.view(-1, 1))

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Evaluate every picture's network at every pixel."""
        return self._decode(weight, self.size)

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Raise ValueError: the weights that draw a given picture are not known."""
        raise ValueError("image: a CPPN cannot be started from a picture; use a PixelImage or a FourierImage for that")

    def pictures_at(self, size: int | Sequence[int]) -> Tensor:
        """Decode the same pictures at another size, one number or (height, width), as (N, C, h, w).

        The longer side spans the same coordinates at every size, so all sizes of one shape show the same picture.

        Raises:
            RuntimeError: before the number of pictures is known.
        """
        return self.to_rgb(self._decode(self.required_weight(), size_pair("size", size)))

    def _decode(self, weight: Tensor, size: tuple[int, int]) -> Tensor:
        points = self._coordinates(size, weight)
        layers = unpack(weight, self.layer_shapes())
        chunks = [self._evaluate(layers, chunk) for chunk in points.split(_CHUNK, dim=1)]
        return torch.cat(chunks, 2).view(len(weight), self.channels, *size)

    def _coordinates(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """Return (2 or 4, H W): x and y, or cosine and sine of each."""
        axes = []
        for length in reversed(size):
            pixels = torch.arange(length, dtype=like.dtype, device=like.device)
            if self.tile:
                angle = pixels * (2 * math.pi / length)
                axes.append(torch.stack([angle.cos(), angle.sin()]) * math.sqrt(2))
            else:
                axes.append((2 * pixels - (length - 1))[None] * (_REACH / max(1, max(size) - 1)))
        across, down = axes
        shape = (len(across), *size)
        return torch.cat([across[:, None, :].expand(shape), down[:, :, None].expand(shape)]).flatten(1)

    def _evaluate(self, layers: list[Tensor], points: Tensor) -> Tensor:
        """Return (N, C, P) at points (I, P)."""
        first, *hidden = layers
        net = torch.baddbmm(first[..., -1:], first[..., :-1], points.expand(len(first), -1, -1))
        for layer in hidden:
            net = self._hidden_layer(net, layer)
        return net

    def _hidden_layer(self, net: Tensor, layer: Tensor) -> Tensor:
        """Apply the activation and the layer after it."""
        weight, bias = layer[..., :-1], layer[..., -1:]
        if self.activation == "relu":
            return torch.baddbmm(bias, weight, (nn.functional.relu(net) - 0.40) / 0.58)
        # The scales of the activation are multiplied into the weights: both halves, twice as large as `net`, need no
        # memory of their own.
        mean, scale = (0.0, 0.6) if self.activation == "composite" else (0.45, 0.396)
        linear, squared = weight[..., : self.width] / 0.67, weight[..., self.width :] / scale
        arctan = torch.atan(net)
        bias = bias - mean * squared.sum(-1, keepdim=True)
        return torch.baddbmm(torch.baddbmm(bias, linear, arctan), squared, arctan * arctan)

    def extra_repr(self) -> str:
        """Add the network."""
        network = f"width={self.width}, depth={self.depth}, activation={self.activation!r}, tile={self.tile}"
        return f"{super().extra_repr()}, {network}"
