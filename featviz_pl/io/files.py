"""Files that are whole or absent."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from featviz_pl.numerics.digest import digest


def check_output(path: str | os.PathLike[str], suffix: str = ".png") -> Path:
    """Return the path when a file of that kind can be written there; leave nothing behind.

    Raises:
        ValueError: when the ending is wrong, the path is a folder, or its folder cannot be made or written.
    """
    output = Path(path)
    if output.suffix.lower() != suffix:
        raise ValueError(f"output: {str(path)!r} must end in {suffix}")
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(output.stat().st_mode):
                raise ValueError(f"output: {str(path)!r} is a folder; give the path of a file")
        existing = next(parent for parent in output.parents if parent.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"output: cannot write {str(path)!r}: {error.strerror or error}") from error
    return output


def write_whole(path: str | os.PathLike[str], content: str | Callable[[Path], object]) -> Path:
    """Write a file under a temporary name in its folder, then rename it: readers see all of it or none.

    Args:
        path: of the file; missing folders are made.
        content: text, written as UTF-8, or a function that writes the file at the path it is called with.
    """
    output = Path(path)
    output.parent.mkdir(parents=True, exist_ok=True)
    # A digest, because the name itself may be as long as the file system takes.
    temporary = output.with_name(f".{digest([os.fsencode(output.name)])}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        if isinstance(content, str):
            temporary.write_bytes(content.encode())
        else:
            content(temporary)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return output


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; folders, pipes and devices, which may never end, are refused.

    Raises:
        OSError: with the reason.
    """
    try:
        mode = Path(path).stat().st_mode
    except ValueError as error:  # a NUL in the path
        raise OSError(f"there is no such file ({error})") from error
    if not stat.S_ISREG(mode):
        raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")
    return Path(path).open("rb")


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: with the reason.
    """
    with open_regular(path) as file:
        return file.read()


def layer_folder(folder: str | os.PathLike[str], layer: str) -> Path:
    """Return the folder of a layer; names of modules may hold what names of files cannot."""
    return Path(folder) / quote(layer, safe=" ()[],+=@~")
