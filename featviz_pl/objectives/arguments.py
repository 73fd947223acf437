"""Arguments that objectives share: layers, units and vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featviz_pl.io.torch_files import read_torch_file
from featviz_pl.numerics.checks import finite_number, first_line, whole_number
from featviz_pl.numerics.device_transfer import numbers_on

Vectors = Tensor | Sequence[float] | Sequence[Sequence[float]] | str


def layer_name(layer: object) -> str:
    """Return the name of a layer, or raise TypeError."""
    if not isinstance(layer, str) or not layer:
        raise TypeError(f"layer must be a module name such as 'features.9', got {layer!r}")
    return layer


def layer_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name or several, each once, or raise."""
    names = list(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]
    if not names:
        raise ValueError("layers must hold at least one layer")
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"layers must be module names such as 'features.9', got {name!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"layers: each may be named once, got {names}")
    return tuple(names)


def layers_argument(layers: Sequence[str]) -> str | list[str]:
    """Return layers as a formula writes them."""
    return layers[0] if len(layers) == 1 else list(layers)


def several(value: object) -> bool:
    """Say whether an argument holds one value for each picture: a sequence or a tensor, but no text."""
    return isinstance(value, (Sequence, Tensor)) and not isinstance(value, str)


def listed_units(units: int | Sequence[int]) -> tuple[bool, tuple[int, ...]]:
    """Return whether one unit serves all pictures, and the units.

    Raises:
        ValueError: when there is none, or one is negative.
    """
    numbers: Sequence[Any] = list(units) if several(units) else [units]  # type: ignore[arg-type]
    if not numbers:
        raise ValueError("units must hold at least one unit")
    return not several(units), tuple(whole_number("unit", unit, least=0) for unit in numbers)


def units_argument(single: bool, units: tuple[int, ...]) -> int | range | list[int]:
    """Return units as a formula writes them: one number, a range for consecutive ones, or a list."""
    first, last = units[0], units[-1]
    if single:
        return first
    return range(first, last + 1) if len(units) > 2 and units == tuple(range(first, last + 1)) else list(units)


def check_units(owner: str, units: Sequence[int], available: int) -> None:
    """Raise ValueError for units that a layer or a dictionary does not have."""
    for unit in units:
        if unit >= available:
            raise ValueError(f"unit: {owner} has {available} units, 0 to {available - 1}; there is no {unit}")


def select_units(values: Tensor, units: Sequence[int]) -> Tensor:
    """Return the unit of each picture, or the only one for every picture.

    Shape:
        (N, V, …, units) -> (N, V, …)

    Example:
        >>> select_units(torch.tensor([[[1, 2, 3]], [[4, 5, 6]]]), [0, 2])
        tensor([[1],
                [6]])
    """
    if len(units) == 1:
        return values[..., units[0]]
    indices = numbers_on(values.device, units)
    return values.movedim(-1, 1)[torch.arange(len(indices), device=indices.device), indices]


@torch.inference_mode(False)  # vectors of an objective that is made during a validation must also serve a training
def load_vectors(argument: str, value: Any, axes: Sequence[int] = (1, 2)) -> Tensor:
    """Return a private tensor of finite floats from a tensor, an array, nested numbers, or a file (.pt, .npy).

    Numbers become float32, and so does what is less precise; float64 stays.

    Args:
        argument: its name, for errors.
        value: of the argument.
        axes: how many axes the tensor may have.

    Raises:
        TypeError: when these are no numbers.
        ValueError: when the number of axes is another, the tensor is empty, or a number is not finite.

    Example:
        >>> load_vectors("vectors", [[1, 2], [3, 4.5]])
        tensor([[1.0000, 2.0000],
                [3.0000, 4.5000]])
    """
    if isinstance(value, (str, os.PathLike)):
        value = read_array(argument, value)
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if not isinstance(value, Tensor):
        value = torch.tensor(_numbers(argument, value), dtype=torch.float32)
    if value.dtype == torch.bool or value.is_complex():
        raise TypeError(f"{argument} must be numbers, got {value.dtype}")
    if value.ndim not in axes:
        allowed = " or ".join(str(number) for number in axes)
        raise ValueError(f"{argument} must have {allowed} axes, got shape {tuple(value.shape)}")
    if not value.numel():
        raise ValueError(f"{argument} holds no numbers: its shape is {tuple(value.shape)}")
    copy: Tensor = value.detach().to("cpu", torch.float64 if value.dtype == torch.float64 else torch.float32).clone()
    if not torch.isfinite(copy).all():
        raise ValueError(f"{argument} must be finite, got NaN or infinity among the numbers")
    return copy


def read_array(argument: str, path: str | os.PathLike[str]) -> Any:
    """Read an array (.npy) or the tensors that `torch.save` wrote; nothing in the file is executed."""
    if Path(path).suffix != ".npy" or not Path(path).is_file():
        return read_torch_file(path, argument, "give a .npy or tensors that torch.save wrote")
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        raise ValueError(f"{argument}: cannot read {os.fspath(path)!r} as .npy: {first_line(error)}") from error


def rows_like(vectors: Tensor, activation: Tensor) -> Tensor:
    """Return vectors (F,) or (N, F) as (1, F) or (N, F), with the device and precision of the activation."""
    return vectors.to(activation).reshape(-1, vectors.shape[-1])


def check_width(argument: str, layer: str, units: int, width: int) -> None:
    """Raise ValueError when vectors do not have an entry for each unit."""
    if width != units:
        raise ValueError(f"{argument}: {layer!r} has {units} units, so a vector has {units} numbers, got {width}")


def _numbers(argument: str, value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        rows = [_numbers(argument, part) for part in value]
        if len({np.shape(part) for part in rows}) > 1:
            raise ValueError(f"{argument} must be rows of one length, got {value!r}")
        return rows
    return finite_number(argument, float(value) if isinstance(value, Tensor) and value.ndim == 0 else value)
