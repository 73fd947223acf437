"""Files of torch.save, read without running code in them."""

from __future__ import annotations

import collections
import os
import pickle
from types import SimpleNamespace
from typing import Any, BinaryIO

import torch

from featviz_pl.io.files import open_regular
from featviz_pl.numerics.checks import first_line


def read_torch_file(
    path: str | os.PathLike[str], argument: str = "path", hint: str = "", skip_objects: bool = False
) -> Any:
    """Load what `torch.save` wrote to the CPU, with ``weights_only=True``.

    Args:
        path: of the file.
        argument: that names the path in errors.
        hint: what the user can do instead; ends the message.
        skip_objects: put `Skipped` in place of objects besides tensors and plain values, such as the hyper-parameters of
            a checkpoint, where these would be refused otherwise. They are never built, and no code of theirs runs.

    Raises:
        ValueError: when the file is missing, is truncated, or holds objects besides tensors and plain values.

    Example:
        >>> read_torch_file("absent.pt", "weights")
        Traceback (most recent call last):
        ValueError: weights: there is no file 'absent.pt'
    """
    ending = f"; {hint}" if hint else ""
    try:
        with open_regular(path) as file:
            return _load(file, skip_objects)
    except FileNotFoundError as error:
        raise ValueError(f"{argument}: there is no file {os.fspath(path)!r}{ending}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"{argument}: cannot read {os.fspath(path)!r}: {reason}{ending}") from error


def _load(file: BinaryIO, skip_objects: bool) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises anything
        text = str(error)
        if "unsupported global" in text.lower() or ("WeightsUnpickler" in text and "Unsupported operand" not in text):
            if skip_objects:
                return _load_tensors(file)
            raise ValueError("it holds objects besides tensors, which are not read for safety") from error
        if "TorchScript" in text:
            raise ValueError("it is TorchScript; load it with torch.jit.load and give the module") from error
        raise ValueError("it is truncated or no file of torch.save") from error


class Skipped:
    """Stand for an object of a file that was not built."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **options: Any) -> Skipped:
        """Take the place of any function."""
        return self

    def __setstate__(self, state: Any) -> None:
        """Drop what belongs to the object."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop what belongs to a mapping."""

    def append(self, value: Any) -> None:
        """Drop what belongs to a sequence."""

    def extend(self, values: Any) -> None:
        """Drop what belongs to a sequence."""


_REBUILDERS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_sparse_tensor"}


class _TensorUnpickler(pickle.Unpickler):
    """Build tensors and plain values, and nothing else: whatever else a file names becomes `Skipped`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in _REBUILDERS:
            return getattr(torch._utils, name)
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return super().find_class(module, name)
        if module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        return Skipped


def _load_tensors(file: BinaryIO) -> Any:
    file.seek(0)
    reader: Any = SimpleNamespace(
        Unpickler=_TensorUnpickler,
        load=lambda stream, **options: _TensorUnpickler(stream, **options).load(),
        __name__="tensors",
    )
    try:
        return torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)
    except Exception as error:
        raise ValueError("it holds objects besides tensors, and the tensors cannot be read without them") from error
