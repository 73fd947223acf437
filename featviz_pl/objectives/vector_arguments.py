"""Vectors that a user gives: as a tensor, as numbers, or in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featviz_pl.io.torch_files import read_torch_file
from featviz_pl.numerics.checks import finite_number, first_line
from featviz_pl.numerics.digest import digest

Vectors = Tensor | Sequence[float] | Sequence[Sequence[float]] | str
_SPELLED = 16  # numbers that a formula spells out; more are named by their content


@torch.inference_mode(False)  # vectors given during a validation must also serve a training
def load_vectors(argument: str, value: Any, axes: Sequence[int] = (1, 2)) -> Tensor:
    """Return a private tensor of finite floats from a tensor, an array, nested numbers, or a file (.pt, .npy).

    Numbers become float32, and so does what is less precise; float64 stays.

    Args:
        argument: its name, for errors.
        value: what was given.
        axes: how many axes the tensor may have.

    Raises:
        TypeError: when these are no numbers.
        ValueError: when the number of axes is another, nothing is there, or a number is not finite.

    Example:
        >>> load_vectors("vectors", [[1, 2], [3, 4.5]])
        tensor([[1.0000, 2.0000],
                [3.0000, 4.5000]])
    """
    if isinstance(value, (str, os.PathLike)):
        value = read_file(argument, value)
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
    own: Tensor = value.detach().to("cpu", torch.float64 if value.dtype == torch.float64 else torch.float32).clone()
    if not torch.isfinite(own).all():
        raise ValueError(f"{argument} must be finite, got NaN or infinity among the numbers")
    return own


def read_file(argument: str, path: str | os.PathLike[str]) -> Any:
    """Read an array (.npy) or whatever of tensors `torch.save` wrote; nothing in the file is executed."""
    if Path(path).suffix != ".npy" or not Path(path).is_file():
        return read_torch_file(path, argument, "give a .npy or tensors that torch.save wrote")
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        raise ValueError(f"{argument}: cannot read {os.fspath(path)!r} as .npy: {first_line(error)}") from error


def spelled(value: Tensor) -> str:
    """Write few numbers exactly, and name many by their shape and content, the same wherever they come from.

    Example:
        >>> spelled(torch.tensor([0.1, 2.0])), spelled(torch.zeros(2, 512))
        ('[0.1, 2.0]', '<(2, 512) tensor 8f77bb2b>')
    """
    if value.numel() <= _SPELLED:
        return _nested(value.cpu().numpy())
    return f"<{tuple(value.shape)} tensor {content(value)}>"


def content(*values: Tensor) -> str:
    """Return 8 digits that tell contents apart, whatever their precision."""
    return digest((part for value in values for part in (str(tuple(value.shape)), value.double())), digits=8)


def rows_of(vectors: Tensor, activation: Tensor) -> Tensor:
    """Return vectors (F,) or (N, F) as (1, F) or (N, F), where and as precise as the activation is."""
    return vectors.to(activation).reshape(-1, vectors.shape[-1])


def require_width(argument: str, layer: str, units: int, given: int) -> None:
    """Raise when vectors do not have an entry for each unit."""
    if given != units:
        raise ValueError(f"{argument}: {layer!r} has {units} units, so a vector has {units} numbers, got {given}")


def _nested(array: Any) -> str:
    # numpy writes a float32 with as few digits as tell it from its neighbours; Python would write those of a float64
    return f"[{', '.join(map(_nested, array))}]" if array.ndim else str(array[()])


def _numbers(argument: str, value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        made = [_numbers(argument, part) for part in value]
        if len({np.shape(part) for part in made}) > 1:
            raise ValueError(f"{argument} must be rows of one length, got {value!r}")
        return made
    return finite_number(argument, float(value) if isinstance(value, Tensor) and value.ndim == 0 else value)
