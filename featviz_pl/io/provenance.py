"""Where a picture came from, in a text chunk of its PNG."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

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
        ValueError: when the file is no PNG of this library.

    Example:
        >>> import tempfile, torch
        >>> from featviz_pl.io import save_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_provenance(save_png(torch.rand(1, 4, 4), f"{folder}/a.png", {"target": "features.9:33"}))["target"]
        'features.9:33'
    """
    try:
        with Pillow.open(path) as picture:
            picture.load()
            text = picture.info.get(PROVENANCE_KEY)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"path: cannot read {str(path)!r}: {error}") from error
    if text is None:
        raise ValueError(f"path: {str(path)!r} carries no provenance of featviz_pl")
    origin: dict[str, Any] = json.loads(text)
    return origin
