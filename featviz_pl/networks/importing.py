"""Objects by their import path, ``package.module:name``, from the current folder too."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def import_object(argument: str, path: str) -> Any:
    """Return the object with an import path ``package.module:name``.

    Args:
        argument: that names the path in errors.
        path: of the object; the name may have dots.

    Raises:
        ValueError: when it cannot be imported.

    Example:
        >>> import_object("call", "math:sqrt")(4.0)
        2.0
    """
    module, _, name = path.partition(":")
    with current_folder_importable():
        try:
            value: Any = importlib.import_module(module)
            for part in name.split("."):
                value = getattr(value, part)
        except Exception as error:  # whatever the module does when it is imported
            raise ValueError(
                f"{argument}: cannot import {path!r} ({type(error).__name__}: {error}); use package.module:name"
            ) from error
    return value


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Let imports find modules in the current folder, as ``python -m`` does."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before
