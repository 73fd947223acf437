"""What the layers of a network give, found by running it once; and the least picture that reaches one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from featviz_pl.networks.reader import ActivationReader, LayerError
from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import first_line

LARGEST_PROBE = 4096
USUAL_SIZES = (28, 32, 48, 64, 96, 112, 128, 160, 192, 224, 227, 240, 256, 288, 299, 320, 336, 384, 448, 512)

Result = TypeVar("Result")


@dataclass(frozen=True)
class LayerInfo:
    """Describe one layer that can be read.

    Args:
        name: dotted module name, or ``"output"``.
        kind: class of the module.
        shape: of its activation without the batch, in the order of axes in which objectives read it.
        units: number of units.
        axes: what the axes of the layer's own result were found to be, such as ``"tokens x features"``.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    units: int
    axes: str = ""


def describe_layers(reader: ActivationReader, size: tuple[int, int], channels: int) -> list[LayerInfo]:
    """List the layers that can be read for a grey picture, in the order of their last calls; others are left out."""
    layers = _first_success(reader, (channels, *size), "its layers", lambda picture: reader.readable(picture))
    kinds = reader.kinds
    return [
        LayerInfo(name, kinds[name], shape, shape[unit_axis(shape)], axes) for name, (shape, axes) in layers.items()
    ]


def probe(reader: ActivationReader, picture: tuple[int, int, int], layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer for a picture (C, H, W), without the batch axis; learn whether one size only is accepted.

    Raises:
        ValueError: when the picture is too small (with the least size that works), has the wrong number of channels, or
            when a layer is unknown or gives no tensor.
    """
    for layer in layers:
        reader.check_layer(layer)

    def shapes(image: Tensor) -> dict[str, tuple[int, ...]]:
        read = reader.activations(image.requires_grad_(True), layers)
        found = {layer: tuple(value.shape[1:]) for layer, value in read.items()}
        for layer, shape in found.items():
            if 0 in shape:
                raise RuntimeError(f"nothing is left of the picture at {layer!r}, whose shape is {shape}")
        return found

    return _first_success(reader, picture, ", ".join(layers), shapes)


def _first_success(
    reader: ActivationReader, picture: tuple[int, int, int], purpose: str, read: Callable[[Tensor], Result]
) -> Result:
    """Return what is read of a grey picture, at the network's own size where it accepts no other.

    Raises:
        ValueError: when nothing can be read; the message names the sizes that work.
    """

    def attempt(height: int, width: int) -> Result:
        device = next(reader.module.parameters(), torch.empty(0)).device
        with torch.inference_mode(False), torch.enable_grad(), reader.uncompiled():
            return read(torch.full((1, picture[0], height, width), 0.5, device=device))

    def works(side: int) -> bool:
        try:
            attempt(side, side)
        except LayerError:
            raise
        except Exception:
            return False
        return True

    size = picture[1:]
    try:
        return attempt(*size)
    except LayerError:
        raise
    except Exception as error:  # networks refuse a picture in many ways
        failure = error
    least = _least_side(works)
    if least is not None and least > min(size):
        raise ValueError(
            f"size: a picture of {size[0]} x {size[1]} is too small for {purpose}; the least size that works is {least}"
        ) from failure
    if reader.size is not None and reader.size != size:
        reader.only_size = reader.size
        try:
            return attempt(*size)
        except Exception:
            reader.only_size = None
    accepted = next((side for side in USUAL_SIZES if side != max(size) and works(side)), None)
    hint = _hint(reader, failure) if accepted is None else f"; it works at size={accepted}"
    raise ValueError(
        f"network: its forward fails on a picture of shape {picture}: {first_line(failure)}{hint}; where it takes more "
        "than pictures, give call= (see FrozenNetwork)"
    ) from failure


def _hint(reader: ActivationReader, failure: Exception) -> str:
    """Name mean or std where they decided the number of channels, and channels are what is wrong."""
    for name, values in (("mean", reader.mean), ("std", reader.std)):
        if values is not None and len(values) > 1 and "channel" in str(failure):
            return f"; {name} has {len(values)} values"
    return ""


def _least_side(works: Callable[[int], bool]) -> int | None:
    """Find the least side of a square picture that works, if every larger one does too."""
    side = 1
    while not works(side):
        side *= 2
        if side > LARGEST_PROBE // 4:
            return None
    low, high = side // 2, side
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high if works(high + 1) else None
