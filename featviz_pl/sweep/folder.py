"""The folder of a sweep: pictures that are whole or absent, a manifest that only grows, and locks.

``manifest.jsonl`` begins with the settings of the sweep; one line for each unit follows. While a sweep runs, every
process appends to a file of its own, ``manifest.<rank>.jsonl``; at the end they are merged. A line that is torn counts
for nothing. What decides is the pictures: a unit is finished when its picture can be read whole and its origin is that
of this sweep.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from featviz_pl.io import read_provenance
from featviz_pl.io.files import layer_folder, write_whole
from featviz_pl.io.provenance import PROVENANCE_KEY
from featviz_pl.objectives import Target
from featviz_pl.sweep.targets import target_order

try:
    import fcntl
except ImportError:  # Windows: two sweeps of one folder are then not kept apart
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
UNITS_PER_FOLDER = 1000
END_OF_PNG = b"IEND\xaeB`\x82"
PER_PICTURE_KEYS = ("target", "objective", "score")  # of the provenance of a picture, besides the sweep's settings
PHOTO_RECORD, PHOTO_SHEET = "photos.json", "-photos.png"  # of `featviz sweep --photos`, beside the pictures
_PATIENCE = 30.0  # seconds: processes of a sweep that was killed notice at their next step
_PICTURE = re.compile(r"\d+\.png")

Entry = dict[str, Any]


class FolderInUseError(ValueError):
    """Say that another sweep works in the folder."""


def picture_path(folder: str | os.PathLike[str], target: str, units: int) -> Path:
    """Return where the picture of a target ``layer:unit`` lies; layers of more than 1,000 units have folders of 1,000.

    Args:
        folder: of the sweep.
        target: ``layer:unit``.
        units: of the whole layer.

    Example:
        >>> picture_path("atlas", "features.9:33", 512).as_posix(), picture_path("atlas", "fc:1234", 4096).as_posix()
        ('atlas/features.9/33.png', 'atlas/fc/1/1234.png')
    """
    parsed = Target.parse(target)
    place = layer_folder(folder, parsed.layer)
    return (place / str(parsed.unit // UNITS_PER_FOLDER) if units > UNITS_PER_FOLDER else place) / f"{parsed.unit}.png"


def read_manifest(folder: str | os.PathLike[str]) -> tuple[Entry | None, dict[str, Entry]]:
    """Return the settings of a sweep, None where there are none, and the latest entry of each target, also of one that runs.

    Raises:
        ValueError: when the manifest is of another version of its format.
    """
    settings: Entry | None = None
    entries: dict[str, Entry] = {}
    for path in [Path(folder) / "manifest.jsonl", *rank_manifests(folder)]:
        for line in _lines(path):
            if "featviz_sweep" in line:
                if line["featviz_sweep"] != FORMAT:
                    raise ValueError(
                        f"manifest: {str(path)!r} has format {line['featviz_sweep']}, and this version reads {FORMAT}; go on with the "
                        "version that wrote it, or give another folder"
                    )
                settings = dict(line.get("settings", {}))
            elif isinstance(line.get("target"), str):
                entries[line["target"]] = line
    return settings, entries


def rank_manifests(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the manifests of single processes, in the order of their ranks."""
    found = [path for path in Path(folder).glob("manifest.*.jsonl") if path.name.split(".")[1].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split(".")[1]))


def _lines(path: Path) -> Iterator[Entry]:
    """Yield the lines of a manifest that can be read."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with file:
        for text in file:
            if text.endswith("\n"):  # else the process that wrote it was killed, or still writes
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield line


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"


def write_manifest(folder: str | os.PathLike[str], settings: Mapping[str, Any], entries: Iterable[Entry]) -> Path:
    """Write the whole manifest, in the order of layers and units: equal sweeps give equal files."""
    ordered = sorted(entries, key=lambda entry: target_order(entry["target"]))

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(_text({"featviz_sweep": FORMAT, "settings": dict(settings)}))
            file.writelines(_text(entry) for entry in ordered)

    return write_whole(Path(folder) / "manifest.jsonl", write)


def read_origin(path: str | os.PathLike[str]) -> Entry | None:
    """Return the origin of a picture, or None where there is no whole picture of this library."""
    try:
        with Path(path).open("rb") as file:
            file.seek(-len(END_OF_PNG), os.SEEK_END)
            if file.read() != END_OF_PNG:
                return None
        return read_provenance(path)
    except (OSError, ValueError):
        return None


def rebuild_manifest(folder: str | os.PathLike[str]) -> Path | None:
    """Write the manifest anew from the pictures; units that failed are not known then, and are tried again.

    Returns:
        The manifest, or None where there are no pictures.

    Raises:
        ValueError: when the pictures are of different sweeps.
    """
    settings: Entry | None = None
    entries: list[Entry] = []
    for path in sorted(_pictures(folder)):
        origin = read_origin(path)
        if origin is None or not isinstance(origin.get("target"), str):
            continue
        own = {key: value for key, value in origin.items() if key not in PER_PICTURE_KEYS}
        settings = own if settings is None else settings
        name = _difference(settings, own)
        if name is not None:
            raise ValueError(
                f"output: {str(folder)!r} holds pictures of different sweeps, with {name} {settings.get(name)!r} and {own.get(name)!r}; "
                "give another folder, or --overwrite (overwrite=True in Python) to remove them"
            )
        entries.append(finished_entry(folder, path, origin))
    return None if settings is None else write_manifest(folder, settings, entries)


def _is_ours(path: Path) -> bool:
    """Say whether a sweep made a picture, without decoding it."""
    try:
        with Pillow.open(path) as picture:
            return '"batch_size"' in str(picture.info.get(PROVENANCE_KEY, ""))
    except (OSError, SyntaxError):
        return False


def _pictures(folder: str | os.PathLike[str]) -> Iterator[Path]:
    for pattern in ("*/*.png", "*/*/*.png"):
        yield from (path for path in Path(folder).glob(pattern) if _PICTURE.fullmatch(path.name))


def finished_entry(folder: str | os.PathLike[str], path: Path, origin: Mapping[str, Any]) -> Entry:
    """Return the line of a picture."""
    return {"target": origin["target"], "path": path.relative_to(folder).as_posix(), "score": origin.get("score")}


def check_settings(folder: str | os.PathLike[str], held: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to mix two sweeps in one folder.

    Raises:
        ValueError: naming the first setting that differs, and both values.
    """
    name = _difference(asked, held)
    if name is not None:
        raise ValueError(
            f"{name}: the pictures in {str(folder)!r} were made with {held.get(name)!r}, and this asks for {asked.get(name)!r}; give "
            "another folder, or --overwrite (overwrite=True in Python) to remove them and begin anew"
        )


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    return next((name for name in [*one, *other] if one.get(name) != other.get(name)), None)


class SweepFolder:
    """Keep the pictures of one sweep, for one of its processes.

    Args:
        path: of the folder; made by the first process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        self._own: int | None = None

    def claim(self, overwrite: bool = False) -> Entry | None:
        """Take the folder for a sweep, as its first process, and return the settings that are held there.

        Args:
            overwrite: remove the manifest and the pictures of an earlier sweep.

        Raises:
            ValueError: when the folder cannot be written, another sweep works there, or its manifest is of another
                format.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ValueError(f"output: cannot write into {str(self.path)!r}: {error.strerror or error}") from error
        try:
            if not _locked(self._lock):
                raise FolderInUseError(
                    f"output: another sweep works in {str(self.path)!r}; wait for it, or give another folder"
                )
            self._wait_for_orphans()
            if overwrite:
                self._clear()
            if rank_manifests(self.path):
                for pattern in (".*.part", "*/.*.part", "*/*/.*.part"):  # what a killed process was about to write
                    for path in self.path.glob(pattern):
                        path.unlink(missing_ok=True)
            settings, _ = read_manifest(self.path)
            if settings is None and rebuild_manifest(self.path) is not None:
                settings, _ = read_manifest(self.path)
        except BaseException:
            self.close()
            raise
        return settings

    def adopt(self, settings: Mapping[str, Any], held: Mapping[str, Any] | None) -> None:
        """Begin with these settings, or go on with them; what processes of a stopped sweep left behind is merged.

        Raises:
            ValueError: when they are not those that are held.
        """
        if held is not None:
            check_settings(self.path, held, settings)
        self.merge(settings)

    def join(self, rank: int) -> None:
        """Open the manifest of one process, after the first one has claimed the folder."""
        self._own = os.open(self.path / f"manifest.{rank}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        _locked(self._own)

    def record(self, entry: Entry) -> None:
        """Append one line."""
        if self._own is None:
            raise RuntimeError("record needs join first")
        line = _text(entry).encode()
        if os.write(self._own, line) != len(line):
            raise OSError(28, "No space left on device", str(self.path))

    def wait_for(self, ranks: int) -> bool:
        """Wait until the other processes of the sweep have ended; say whether this file system can tell."""
        try:
            if fcntl is None or self._own is None:
                return False
            # Held since it joined, if files can be locked here. All processes ask, so that all give the same answer.
            fcntl.flock(self._own, fcntl.LOCK_EX)
        except OSError:
            return False
        finally:
            self._leave()
        for rank in range(1, ranks):
            with (self.path / f"manifest.{rank}.jsonl").open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
        return True

    def rendered(self) -> set[str]:
        """Return the targets of which this run of the sweep has made an entry."""
        return {line["target"] for path in rank_manifests(self.path) for line in _lines(path) if "target" in line}

    def merge(self, settings: Mapping[str, Any], found: Iterable[Entry] = ()) -> dict[str, Entry]:
        """Put the manifests of all processes, and entries that were lost, into one; return the entries."""
        _, entries = read_manifest(self.path)
        for entry in found:
            entries.setdefault(entry["target"], entry)
        write_manifest(self.path, settings, entries.values())
        for path in rank_manifests(self.path):
            path.unlink()
        return entries

    def close(self) -> None:
        """Let go of the folder."""
        self._leave()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _leave(self) -> None:
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def _wait_for_orphans(self) -> None:
        """Wait a little for processes whose sweep was killed; they stop at their next step."""
        patience = time.monotonic() + _PATIENCE
        for path in rank_manifests(self.path):
            with path.open("ab") as file:
                while not _locked(file.fileno()):
                    if time.monotonic() > patience:
                        raise FolderInUseError(
                            f"output: a process of an earlier sweep still works in {str(self.path)!r}; end it, or wait for it"
                        )
                    time.sleep(0.1)

    def _clear(self) -> None:
        """Remove an earlier sweep, and nothing else: the manifest first, so that half of it is not taken for a sweep."""
        for path in [*rank_manifests(self.path), self.path / "manifest.jsonl"]:
            path.unlink(missing_ok=True)
        for path in [path for path in _pictures(self.path) if _is_ours(path)]:
            path.unlink()
            layer = path.parent if path.parent.parent == self.path else path.parent.parent
            layer.with_name(f"{layer.name}.png").unlink(missing_ok=True)
        if (self.path / PHOTO_RECORD).is_file():  # sheets of photos stand beside the pictures
            for path in self.path.rglob(f"*{PHOTO_SHEET}"):
                if "photos" in (read_origin(path) or {}):
                    path.unlink()
            (self.path / PHOTO_RECORD).unlink()

    def __getstate__(self) -> dict[str, Any]:
        """Travel without locks."""
        return {**self.__dict__, "_lock": None, "_own": None}


def _locked(descriptor: int) -> bool:
    """Lock an open file until it is closed, and say whether nobody else holds it; True where files cannot be locked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
