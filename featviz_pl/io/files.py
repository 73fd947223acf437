"""Files that are whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote


def check_output(path: str | os.PathLike[str], suffix: str = ".png") -> Path:
    """Return the path when a file of that kind can be written there, trying it out; leave nothing behind.

    Raises:
        ValueError: when the ending is wrong, the path is a folder, or its folder cannot be made or written.
    """
    chosen = Path(path)
    if chosen.suffix.lower() != suffix:
        raise ValueError(f"output: {str(path)!r} must end in {suffix}")
    if chosen.is_dir():
        raise ValueError(f"output: {str(path)!r} is a folder; give the path of a file")
    folder = chosen.parent
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"output: cannot write {str(path)!r}: {error.strerror or error}") from error
    return chosen


def write_whole(path: str | os.PathLike[str], content: str | Callable[[Path], object]) -> Path:
    """Write a file under a temporary name in its folder, then rename it: readers see all of it or none.

    Args:
        path: of the file; missing folders are made.
        content: text, written as UTF-8, or a function that writes the file at the path it is called with.
    """
    chosen = Path(path)
    chosen.parent.mkdir(parents=True, exist_ok=True)
    temporary = chosen.with_name(f".{chosen.stem[:100]}.{os.getpid()}.part")
    try:
        if isinstance(content, str):
            temporary.write_bytes(content.encode())
        else:
            content(temporary)
        os.replace(temporary, chosen)
    finally:
        temporary.unlink(missing_ok=True)
    return chosen


def layer_folder(folder: str | os.PathLike[str], layer: str) -> Path:
    """Return the folder of a layer; names of modules may hold what names of files cannot."""
    return Path(folder) / quote(layer, safe=" ()[],+=@~")
