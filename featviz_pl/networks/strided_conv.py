"""A faster form of the wide, strided convolution with which many networks look at a picture first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Measured on CPUs: kernels of 7 x 7 and more gain a factor of 1.4 to 3, those of 3 x 3 and 4 x 4 lose.
_FEWEST_WEIGHTS = 49
_MOST_CHANNELS = 4


class StridedConv2d(nn.Conv2d):
    """Convolve as usual, and compute the gradient by the picture through blocks of ``stride x stride`` pixels.

    Blocks as channels make the strided convolution one of stride 1, whose gradient is the same sums in another order.
    With few input channels the usual one leaves most of a vector unit idle: through the first layer of SqueezeNet or
    ResNet it takes longer than all the layers after it. Used on CPUs only, for frozen weights, never in a compiled
    graph, and never for a guest itself.
    """

    def _get_name(self) -> str:
        """Return the name of the class whose place this takes: it is what users see of their network."""
        return nn.Conv2d.__name__

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 - torch's name
        frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
        watched = input.requires_grad and torch.is_grad_enabled() and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        # A compiler has forms of its own, and would pad and turn the weights, which are kept aside here, in every step.
        if input.device.type != "cpu" or input.ndim != 4 or not frozen or not watched or torch.compiler.is_compiling():
            usual: Tensor = super()._conv_forward(input, weight, bias)
            return usual
        result: Tensor = _ThroughBlocks.apply(
            input, weight, bias, self.stride, self.padding, self._blocks_of(weight, input)
        )
        return result

    def _blocks_of(self, weight: Tensor, like: Tensor) -> Tensor:
        """Return the weights that turn the gradient by the result into that by the blocks, made once for weights that stay."""
        reduced = torch.is_autocast_enabled("cpu") and like.dtype != torch.float64  # which autocast leaves alone
        dtype = torch.get_autocast_dtype("cpu") if reduced else like.dtype
        key = (weight.data_ptr(), weight._version, weight.dtype, dtype)
        known: tuple[Any, Tensor] | None = self.__dict__.get("_blocks")
        if known is None or known[0] != key:
            sides, steps = weight.shape[2:], self.stride
            with torch.inference_mode(False), torch.no_grad():
                filled = functional.pad(
                    weight, (0, -sides[1] % steps[1], 0, -sides[0] % steps[0])
                )  # with zeros to whole blocks
                turned = _blocks_as_channels(filled, steps).transpose(0, 1).flip(2, 3)
                known = key, turned.to(dtype).contiguous(memory_format=torch.channels_last)
            self.__dict__["_blocks"] = known  # at once: another thread may ask
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what is made anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_blocks"}


class _ThroughBlocks(torch.autograd.Function):
    """Convolve; pass the gradient on by a convolution of stride 1 that gives it in blocks of pixels."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, steps: Any, padding: Any, blocks: Tensor
    ) -> Tensor:
        ctx.save_for_backward(blocks)
        ctx.size, ctx.steps, ctx.padding = maps.shape[2:], steps, padding
        return functional.conv2d(maps, weight, bias, steps, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (blocks,), (gradient,) = ctx.saved_tensors, gradients
        through = functional.conv2d(
            gradient.to(blocks.dtype), blocks, padding=[length - 1 for length in blocks.shape[2:]]
        )
        by_pixel = _channels_as_blocks(through, ctx.steps)
        (height, width), (above, left) = ctx.size, ctx.padding
        below, right = (
            height + above - by_pixel.shape[2],
            width + left - by_pixel.shape[3],
        )  # what no window reaches, or less than 0
        if any((above, left, below, right)):
            by_pixel = functional.pad(by_pixel, (-left, right, -above, below))
        return by_pixel, None, None, None, None, None


def _blocks_as_channels(maps: Tensor, steps: Sequence[int]) -> Tensor:
    """Gather blocks of pixels into channels, (N, C, H, W) -> (N, sy * sx * C, H / sy, W / sx), channels last in memory."""
    count, channels, height, width = maps.shape
    rows, columns = height // steps[0], width // steps[1]
    blocks = maps.permute(0, 2, 3, 1).reshape(count, rows, steps[0], columns, steps[1], channels).transpose(2, 3)
    return blocks.reshape(count, rows, columns, steps[0] * steps[1] * channels).permute(0, 3, 1, 2)


def _channels_as_blocks(maps: Tensor, steps: Sequence[int]) -> Tensor:
    """Undo `_blocks_as_channels`."""
    count, channels, rows, columns = maps.shape
    channels //= steps[0] * steps[1]
    pixels = maps.permute(0, 2, 3, 1).reshape(count, rows, columns, steps[0], steps[1], channels).transpose(2, 3)
    return pixels.reshape(count, rows * steps[0], columns * steps[1], channels).permute(0, 3, 1, 2)


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
