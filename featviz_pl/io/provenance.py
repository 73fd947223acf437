"""Where a picture came from, in a text chunk of its PNG."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from typing import Any

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

PROVENANCE_KEY = "featviz_pl"


def versions() -> dict[str, str]:
    """Return the releases of this library and of torch, as every provenance names them."""
    return {"featviz_pl": version("featviz_pl"), "torch": version("torch").partition("+")[0]}


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
