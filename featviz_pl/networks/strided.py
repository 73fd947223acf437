"""A faster form of the wide, strided convolution with which many networks look at a picture first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Measured on CPUs: kernels of 7 x 7 and more gain a factor of 1.4 to 3, those of 3 x 3 and 4 x 4 lose.
_FEWEST_WEIGHTS = 49
_MOST_CHANNELS = 4


class StridedConv2d(nn.Conv2d):
    """Convolve blocks of ``stride x stride`` pixels as channels, at stride 1: the same sums in another order.

    With few input channels the usual gradient by the picture leaves most of a vector unit idle: through the first layer of
    SqueezeNet or ResNet it takes longer than all the layers after it. Used on CPUs only, and never for a guest itself.
    """

    def _get_name(self) -> str:
        """Return the name of the class whose place this takes: it is what users see of their network."""
        return nn.Conv2d.__name__

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 - torch's name
        if input.device.type != "cpu" or input.ndim != 4 or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return self._as_usual(input, weight, bias)
        steps: list[int] = [int(step) for step in self.stride]
        sides = [int(side) for side in weight.shape[2:]]
        blocks = [-(-side // step) for side, step in zip(sides, steps)]  # the kernel, filled with zeros to whole blocks
        before = [int(width) for width in self.padding]
        results = [(length + 2 * pad - side) // step + 1 for length, pad, side, step in zip(input.shape[2:], before, sides, steps)]
        if min(results) < 1:
            return self._as_usual(input, weight, bias)  # torch says what is wrong
        needed = [(result - 1 + block) * step for result, block, step in zip(results, blocks, steps)]
        after = [need - length - pad for need, length, pad in zip(needed, input.shape[2:], before)]
        if any([*before, *after]):  # a negative one cuts off what no window reaches
            input = functional.pad(input, (before[1], after[1], before[0], after[0]))  # noqa: A001
        filled = functional.pad(weight, (0, blocks[1] * steps[1] - sides[1], 0, blocks[0] * steps[0] - sides[0]))
        return functional.conv2d(_blocks_as_channels(input, steps), _blocks_as_channels(filled, steps), bias)

    def _as_usual(self, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = super()._conv_forward(maps, weight, bias)
        return result


def _blocks_as_channels(maps: Tensor, steps: list[int]) -> Tensor:
    """Gather blocks of pixels into channels, (N, C, H, W) -> (N, C * sy * sx, H / sy, W / sx), channels last in memory."""
    count, channels, height, width = maps.shape
    rows, columns = height // steps[0], width // steps[1]
    blocks = maps.permute(0, 2, 3, 1).reshape(count, rows, steps[0], columns, steps[1], channels).transpose(2, 3)
    return blocks.reshape(count, rows, columns, steps[0] * steps[1] * channels).permute(0, 3, 1, 2)


def speed_up_strided(module: nn.Module) -> None:
    """Let the wide, strided convolutions of a private copy of a network use the faster form."""
    for part in module.modules():
        if type(part) is nn.Conv2d and _gains(part):
            part.__class__ = StridedConv2d


def _gains(convolution: nn.Conv2d) -> Any:
    sides, steps = convolution.kernel_size, convolution.stride
    return (
        min(steps) > 1
        and sides[0] * sides[1] >= _FEWEST_WEIGHTS
        and convolution.in_channels <= _MOST_CHANNELS
        and convolution.groups == 1
        and set(convolution.dilation) == {1}
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )
