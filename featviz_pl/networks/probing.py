"""What the layers of a network give, found by running it once; and the least picture that reaches one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from featviz_pl.networks.reader import OUTPUT, ActivationReader, LayerError, first_tensor
from featviz_pl.numerics.activation_axes import unit_axis
from featviz_pl.numerics.checks import first_line

LARGEST_PROBE = 4096


@dataclass(frozen=True)
class LayerInfo:
    """Describe one layer: its dotted name, class, output shape without the batch, and number of units."""

    name: str
    kind: str
    shape: tuple[int, ...]
    units: int


def describe_layers(reader: ActivationReader, size: tuple[int, int], channels: int) -> list[LayerInfo]:
    """List the layers that give a tensor in one pass over a grey picture, in order of their last call."""
    reached: dict[str, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, result: Any) -> None:
            tensor = first_tensor(result)
            reached.pop(name, None)
            if tensor is not None and tensor.ndim > 1 and len(tensor) == 1:
                reached[name] = module._get_name()

        return hook

    with reader.hooked({name: note(name) for name in reader.layer_names}):
        probe(reader, (channels, *size), [OUTPUT])
    shapes = probe(reader, (channels, *size), list(reached))
    return [
        LayerInfo(name, kind, shapes[name], shapes[name][unit_axis(shapes[name])]) for name, kind in reached.items()
    ]


def probe(reader: ActivationReader, picture: tuple[int, int, int], layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer for a picture (C, H, W), without the batch axis; learn whether one size only is accepted.

    Raises:
        ValueError: when the picture is too small (with the least size that works), has the wrong number of channels, or
            when a layer is unknown or gives no tensor.
    """
    for layer in layers:
        reader.check_layer(layer)
    try:
        return _shapes(reader, picture, layers)
    except LayerError:
        raise
    except Exception as error:  # networks refuse a picture in many ways
        failure = error
    channels, size = picture[0], picture[1:]
    least = _least_size(reader, channels, layers)
    if least is not None and least > min(size):
        raise ValueError(
            f"size: a picture of {size[0]} x {size[1]} is too small for {', '.join(layers)}; the least size that works is {least}"
        ) from failure
    if reader.size is not None and reader.size != size:
        reader.only_size = reader.size
        try:
            return _shapes(reader, picture, layers)
        except Exception:
            reader.only_size = None
    raise ValueError(
        f"network: its forward fails on a picture of shape {picture}: {first_line(failure)}{_hint(reader, failure)}"
    ) from failure


def _hint(reader: ActivationReader, failure: Exception) -> str:
    """Name mean or std where they decided the number of channels, and channels are what is wrong."""
    for name, values in (("mean", reader.mean), ("std", reader.std)):
        if values is not None and len(values) > 1 and "channel" in str(failure):
            return f"; {name} has {len(values)} values"
    return ""


def _shapes(
    reader: ActivationReader, picture: tuple[int, int, int], layers: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    reference = next(reader.module.parameters(), torch.empty(0))
    with torch.inference_mode(False), torch.enable_grad(), reader.uncompiled():
        image = torch.full((1, *picture), 0.5, device=reference.device)
        read = reader.activations(image.requires_grad_(True), layers)
    shapes = {layer: tuple(value.shape[1:]) for layer, value in read.items()}
    for layer, shape in shapes.items():
        if 0 in shape:
            raise RuntimeError(f"nothing is left of the picture at {layer!r}, whose shape is {shape}")
    return shapes


def _works(reader: ActivationReader, channels: int, side: int, layers: Sequence[str]) -> bool:
    try:
        _shapes(reader, (channels, side, side), layers)
    except LayerError:
        raise
    except Exception:
        return False
    return True


def _least_size(reader: ActivationReader, channels: int, layers: Sequence[str]) -> int | None:
    """Find the least side of a square picture that works, if every larger one does too."""
    side = 1
    while not _works(reader, channels, side, layers):
        side *= 2
        if side > LARGEST_PROBE // 4:
            return None
    low, high = side // 2, side
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _works(reader, channels, middle, layers) else (middle, high)
    return high if _works(reader, channels, high + 1, layers) else None
