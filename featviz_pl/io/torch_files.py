"""Files of torch.save, read without running code in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from featviz_pl.numerics.checks import first_line


def read_torch_file(path: str | os.PathLike[str], argument: str = "path", hint: str = "") -> Any:
    """Load what `torch.save` wrote to the CPU, with ``weights_only=True``.

    Args:
        path: of the file.
        argument: that names the path in errors.
        hint: what the user can do instead; ends the message.

    Raises:
        ValueError: when the file is missing, is truncated, or holds objects besides tensors and plain values.

    Example:
        >>> read_torch_file("absent.pt", "weights")
        Traceback (most recent call last):
        ValueError: weights: there is no file 'absent.pt'
    """
    ending = f"; {hint}" if hint else ""
    if not Path(path).exists():
        raise ValueError(f"{argument}: there is no file {os.fspath(path)!r}{ending}")
    try:
        reason = "it is no regular file"
        if Path(path).is_file():  # not a pipe or a device, which might never end
            with Path(path).open("rb") as file:
                return _load(file)
    except OSError as error:
        reason = error.strerror or first_line(error)
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"{argument}: cannot read {os.fspath(path)!r}: {reason}{ending}")


def _load(file: BinaryIO) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises anything
        text = str(error)
        if "unsupported global" in text.lower() or ("WeightsUnpickler" in text and "Unsupported operand" not in text):
            raise ValueError("it holds objects besides tensors, which are not read for safety") from error
        raise ValueError("it is truncated or no file of torch.save") from error
