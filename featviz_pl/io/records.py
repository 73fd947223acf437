"""Records of photos on disk: whole or absent, read without running code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from featviz_pl.io.files import write_whole
from featviz_pl.io.torch_files import read_torch_file


def save_record(path: str | os.PathLike[str], kind: str, version: int, content: Mapping[str, Any]) -> Path:
    """Write plain values and tensors to a file for `load_record`; missing folders are made, and the file is whole or absent."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # by its name, torch.save would write that into the file
            torch.save({"format": f"featviz_pl.{kind}", "version": version, **content}, file)

    return write_whole(path, write)


def load_record(
    path: str | os.PathLike[str], kind: str, version: int, maker: str, argument: str = "path"
) -> dict[str, Any]:
    """Read what `save_record` wrote.

    Args:
        path: of the file.
        kind: of the record, such as ``"photo_activations"``.
        version: of its format.
        maker: the function that makes such records, for messages.
        argument: that names the path in errors.

    Raises:
        ValueError: when the file is missing, damaged, of another kind or of another version.
    """
    name = kind.replace("_", " ")
    content = read_torch_file(path, argument, f"make {name} of featviz_pl with {maker}")
    if not isinstance(content, Mapping) or content.get("format") != f"featviz_pl.{kind}":
        raise ValueError(f"{argument}: {str(path)!r} holds no {name} of featviz_pl; make some with {maker}")
    if content.get("version") != version:
        raise ValueError(
            f"{argument}: {str(path)!r} has version {content.get('version')!r} of the format, this library reads {version}; "
            "measure again, or use the library that wrote it"
        )
    return dict(content)
