"""JSON that others may have written: torn, nested without end, of another form, or with paths that lead elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from featviz_pl.io.files import open_regular


def parse_object(text: str | bytes, finite: bool = True) -> dict[str, Any]:
    """Return the JSON object that a text holds.

    Args:
        text: in UTF-8 where it is bytes.
        finite: refuse NaN and infinities.

    Raises:
        ValueError: when it holds anything else, is torn or nested too deeply.

    Example:
        >>> parse_object('{"target": "features.9:33"}')
        {'target': 'features.9:33'}
    """
    try:
        content = json.loads(text, parse_constant=_refuse if finite else None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"a JSON object is expected, got {type(content).__name__}")
    return content


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def read_json_lines(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], int]:
    """Return the JSON objects of a file, one a line, and how many whole lines hold none.

    A last line without an end is not counted: another process may still write it.

    Raises:
        OSError: when there is no such regular file, or it cannot be read.
    """
    objects: list[dict[str, Any]] = []
    skipped = 0
    with open_regular(path) as file:
        for line in file:
            if line.endswith(b"\n") and line.strip():
                try:
                    objects.append(parse_object(line))
                except ValueError:
                    skipped += 1
    return objects, skipped


def path_inside(folder: str | os.PathLike[str], name: Any) -> Path:
    """Return the path of a file by its relative name in a folder.

    Raises:
        ValueError: when the name is no text, is absolute, or leads out of the folder.

    Example:
        >>> path_inside("atlas", "features.9/33.png").as_posix()
        'atlas/features.9/33.png'
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"path: a relative name is expected, got {name!r}")
    normal = os.path.normpath(name)
    if Path(normal).is_absolute() or Path(normal).parts[:1] == ("..",):
        raise ValueError(f"path: {name!r} leads out of the folder")
    return Path(folder) / normal
