"""Photos that pictures are compared with, refused in the words of whoever gave them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from featviz_pl.io.photos import photo_paths
from featviz_pl.metrics.photo_activations import PhotoActivations, load_activations


@contextmanager
def said_of(argument: str) -> Iterator[None]:
    """Let errors name the argument that the user gave, where what is called has another name for it.

    Example:
        >>> try:
        ...     with said_of("activations"):
        ...         raise ValueError("path: there is no file 'a.pt'")
        ... except ValueError as error:
        ...     print(error)
        activations: there is no file 'a.pt'
    """
    try:
        yield
    except ValueError as error:
        own, colon, message = str(error).partition(": ")
        if colon and own in ("path", "photos", "folder"):
            raise ValueError(f"{argument}: {message}") from error
        raise


def read_activations(path: str | os.PathLike[str]) -> PhotoActivations:
    """Read the activations of photos from the file that a user gave for them."""
    with said_of("activations"):
        return load_activations(path)


def check_folder(folder: str | os.PathLike[str], limit: int | None = None) -> None:
    """Refuse a folder of photos that is missing or holds none."""
    with said_of("photos"):
        photo_paths(folder, limit)
