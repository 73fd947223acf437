"""Photos that pictures are compared with, checked before anything is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featviz_pl.io.photos import photo_paths
from featviz_pl.metrics.photo_activations import PhotoActivations, load_activations


@contextmanager
def rename_argument_in_errors(argument: str) -> Iterator[None]:
    """Let errors name the argument of the caller, where the function called has another name for it.

    Example:
        >>> try:
        ...     with rename_argument_in_errors("activations"):
        ...         raise ValueError("path: there is no file 'a.pt'")
        ... except ValueError as error:
        ...     print(error)
        activations: there is no file 'a.pt'
    """
    try:
        yield
    except ValueError as error:
        name, colon, message = str(error).partition(": ")
        if colon and name in ("path", "photos", "folder"):
            raise ValueError(f"{argument}: {message}") from error
        raise


def check_photos(
    folder: str | os.PathLike[str] | None,
    activations: str | os.PathLike[str] | PhotoActivations | None,
    limit: int | None = None,
) -> PhotoActivations | None:
    """Check the photos of an evaluation and return their activations where these are given.

    Raises:
        ValueError: when the folder is missing or empty, the activations cannot be read, the folder does not hold all of
            their photos, or these are more than the limit.
    """
    if folder is not None:
        with rename_argument_in_errors("photos"):
            photo_paths(folder, limit)
    if isinstance(activations, (str, os.PathLike)):
        with rename_argument_in_errors("activations"):
            activations = load_activations(activations)
    if folder is not None and activations is not None:
        recorded_photos(folder, activations, limit)
    return activations


def recorded_photos(folder: str | os.PathLike[str], activations: PhotoActivations, limit: int | None) -> list[str]:
    """Return the paths of the photos of a record: these are compared, whatever else the folder holds.

    Raises:
        ValueError: when the folder does not hold all of them, or they are more than the limit.
    """
    if limit is not None and limit < len(activations):
        raise ValueError(
            f"limit: all {len(activations)} photos of the activations are compared; leave out limit={limit}"
        )
    paths = [Path(folder, name) for name in activations.paths]
    missing = [name for name, path in zip(activations.paths, paths) if not path.is_file()]
    if missing:
        raise ValueError(
            f"activations: {len(missing)} of their {len(activations)} photos are not in {os.fspath(folder)!r}, such as "
            f"{missing[0]!r}; give the folder that they were measured on, or measure again"
        )
    return [str(path) for path in paths]
