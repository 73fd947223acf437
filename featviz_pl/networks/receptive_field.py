"""Receptive fields of layers, measured by probing with NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from featviz_pl.networks.frozen import FrozenNetwork
from featviz_pl.networks.gradient_rules import GradientRules
from featviz_pl.networks.loading import as_network
from featviz_pl.networks.probing import probe
from featviz_pl.networks.reader import ActivationReader
from featviz_pl.numerics.activation_axes import at_positions, position_axes
from featviz_pl.numerics.checks import size_pair

BATCH_SIZE = 16  # pictures in one pass
SIDES = 4


def receptive_fields(
    network: FrozenNetwork | nn.Module | str,
    layer: str,
    size: int | Sequence[int] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return which part of the picture each position of a layer sees, as the box around it.

    A pixel of NaN makes everything that is computed from it NaN, whatever the weights: a position sees the pixels that
    make it NaN. Its box so holds all that it can depend on, borders and skipped pixels included, whether or not
    rectifiers are on. Layers behind anything global (attention, squeeze and excitation, a mean over positions) see the
    whole picture. Takes some passes for each position on a side of the layer, at most four for each pixel on a side.

    Shape:
        layer (C, height, width) -> (height, width, 4); tokens (T, F) -> (T, 4); a vector (F,) -> (4,)

    Args:
        network: any network, or the name of one.
        layer: dotted module name, or ``"output"``.
        size: of the picture, one number or (height, width) in pixels; by default the network's, or 224.
        device: to probe on; by default the network's.

    Returns:
        Whole numbers (top, left, bottom, right) in pixels: rows top to bottom - 1 and columns left to right - 1, cut at
        the borders of the picture. A position that sees nothing of it has 0, 0, 0, 0.

    Raises:
        ValueError: when there is no such layer, the picture does not fit, or no position can be probed: a network of
            whole numbers, or one that replaces NaN.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))
        >>> receptive_fields(net, "1", size=8)[1, 0].tolist()
        [1, 0, 5, 3]

    Reference:
        Luo, Li, Urtasun, Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
        2016
    """
    frozen = as_network(network)
    side = size_pair("size", size if size is not None else frozen.size or 224)
    weights = (parameter.device for parameter in frozen.module.parameters())
    device = torch.device(device) if device is not None else next(weights, torch.device("cpu"))
    reader = frozen.reader()
    reader.module.to(device)
    return receptive_boxes(reader, layer, (frozen.channels, *side), device)


def receptive_boxes(
    reader: ActivationReader, layer: str, picture: tuple[int, int, int], device: torch.device
) -> Tensor:
    """Probe one layer of a reader for a picture (C, H, W); see `receptive_fields`."""
    reader.apply_(_at_least_single)
    positions = position_axes(probe(reader, picture, [layer])[layer])
    channels, *size = picture

    def reached(axis: int, from_the_end: bool, lengths: Tensor) -> Tensor:
        """Return (lengths, positions) whether a position becomes NaN where so many of the first or last lines are."""
        pictures = torch.full((len(lengths), channels, *size), 0.5, device=device)
        for image, length in zip(pictures, lengths.tolist()):
            image.narrow(1 + axis, size[axis] - length if from_the_end else 0, length).fill_(torch.nan)
        activation = reader.activations(pictures.requires_grad_(True), [layer])[layer]
        return at_positions(activation.detach()[:, None])[:, 0].isnan().any(-1).cpu()

    with torch.inference_mode(False), torch.enable_grad(), GradientRules(_RULES), reader.uncompiled():
        visible = reached(0, False, torch.tensor([size[0]]))[0]
        if not visible.any():
            raise ValueError(
                f"layer: {layer!r} becomes NaN nowhere where the whole picture is, so its receptive fields cannot be "
                "probed; it may have whole numbers, not depend on the picture, or replace NaN"
            )
        bounds = []
        for axis in (0, 1):
            first = _least_lengths(partial(reached, axis, False), size[axis], len(visible))
            last = _least_lengths(partial(reached, axis, True), size[axis], len(visible))
            bounds.append((first - 1, size[axis] - last + 1))
    (top, bottom), (left, right) = bounds
    boxes = torch.stack([top, left, bottom, right], dim=-1) * visible[:, None]
    return boxes.reshape(*positions, SIDES)


def _least_lengths(reached: Callable[[Tensor], Tensor], longest: int, positions: int) -> Tensor:
    """Return for each position the least length that reaches it, by bisection of all of them at once."""
    misses, hits = torch.zeros(positions, dtype=torch.int64), torch.full((positions,), longest)
    while True:
        middle = ((misses + hits) // 2)[hits - misses > 1].unique()
        if not len(middle):
            return hits
        for lengths in middle.split(BATCH_SIZE):
            for length, hit in zip(lengths, reached(lengths)):  # each length tells about all positions
                hits = torch.where(hit & (length < hits), length, hits)
                misses = torch.where(~hit & (length > misses), length, misses)


def _at_least_single(value: Tensor) -> Tensor:
    """Cast half precision, whose kernels pair neighbouring pixels: NaN would spread from one to the other."""
    return value.float() if value.is_floating_point() and value.element_size() < 4 else value


def _in_double(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function of torch that computes in double precision.

    In less, convolutions may compute several positions together (Winograd's, Fourier's, those of half precision).
    """

    def cast(value: object) -> object:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    def call(*args: Any, **kwargs: Any) -> Tensor:
        return function(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()}).to(args[0].dtype)

    return call


_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d, *(getattr(torch, f"conv_transpose{n}d") for n in (1, 2, 3)))
_PRODUCTS = (functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)
_RULES = {function: _in_double(function) for function in (*_CONVOLUTIONS, *_PRODUCTS)}


def whole_picture(size: Sequence[int], positions: Sequence[int] = ()) -> Tensor:
    """Return boxes (positions…, 4) that all hold the whole picture.

    Example:
        >>> whole_picture((6, 8)).tolist()
        [0, 0, 6, 8]
    """
    return torch.tensor([0, 0, *size]).expand(math.prod(positions), SIDES).reshape(*positions, SIDES)
