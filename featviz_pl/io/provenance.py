"""Where a picture came from, in a text chunk of its PNG."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from featviz_pl.io.json_files import parse_object
from featviz_pl.io.reading import UnreadableError, open_picture

PROVENANCE_KEY = "featviz_pl"


def versions() -> dict[str, str]:
    """Return the releases of this library and of torch, which every provenance holds."""
    return {"featviz_pl": version("featviz_pl"), "torch": version("torch").partition("+")[0]}


def provenance(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the releases of this library and of torch together with values, as JSON holds them.

    Example:
        >>> provenance({"seed": 0, "size": (4, 6)})["size"]
        [4, 6]
    """
    return as_plain({**versions(), **values})


def as_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are read back from JSON: tuples become lists.

    Raises:
        TypeError: when a value has no JSON form.
    """
    return dict(json.loads(json.dumps(dict(values))))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return where a picture came from: network, target, seed and so on.

    Raises:
        ValueError: when the file is no picture of this library.

    Example:
        >>> import tempfile, torch
        >>> from featviz_pl.io import save_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_provenance(save_png(torch.rand(1, 4, 4), f"{folder}/a.png", {"target": "features.9:33"}))["target"]
        'features.9:33'
    """
    try:
        text = str(open_picture(path).info.get(PROVENANCE_KEY, ""))
    except UnreadableError as error:
        raise ValueError(f"path: cannot read {os.fspath(path)!r}: {error}") from error
    try:
        return parse_object(text, finite=False)
    except ValueError as error:
        raise ValueError(f"path: {os.fspath(path)!r} carries no provenance of featviz_pl") from error
