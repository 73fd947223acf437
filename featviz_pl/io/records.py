"""Records of photos on disk: whole or absent, read without running code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from featviz_pl.io.files import write_whole


def save_record(path: str | os.PathLike[str], kind: str, version: int, content: Mapping[str, Any]) -> Path:
    """Write plain values and tensors to a file for `load_record`; missing folders are made, and the file is whole or absent."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # by its name, torch.save would write that into the file
            torch.save({"format": f"featviz_pl.{kind}", "version": version, **content}, file)

    return write_whole(path, write)


def load_record(path: str | os.PathLike[str], kind: str, version: int, maker: str) -> dict[str, Any]:
    """Read what `save_record` wrote.

    Args:
        path: of the file.
        kind: of the record, such as ``"photo_activations"``.
        version: of its format.
        maker: the function that makes such records, for messages.

    Raises:
        ValueError: when the file is missing, damaged, of another kind or of another version.
    """
    what = kind.replace("_", " ")
    if not Path(path).is_file():
        raise ValueError(f"path: there is no file {str(path)!r}")
    try:
        with Path(path).open("rb") as file:
            held = torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(
            f"path: {str(path)!r} is damaged or holds no {what} of featviz_pl; make some with {maker}"
        ) from error
    if not isinstance(held, Mapping) or held.get("format") != f"featviz_pl.{kind}":
        raise ValueError(f"path: {str(path)!r} holds no {what} of featviz_pl; make some with {maker}")
    if held.get("version") != version:
        raise ValueError(
            f"path: {str(path)!r} is of version {held.get('version')!r} of the format, this library reads version {version}; "
            "measure again, or use the library that wrote it"
        )
    return dict(held)
