"""The folder of a sweep: its locks, and the manifests that its processes append to."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from featviz_pl.io.json_files import read_json_lines
from featviz_pl.sweep.manifest import (
    Entry,
    check_settings,
    manifest_line,
    picture_files,
    rank_manifests,
    read_manifest,
    read_origin,
    rebuild_manifest,
    write_manifest,
)

try:
    import fcntl
except ImportError:  # Windows: two sweeps of one folder are then not kept apart
    fcntl = None  # type: ignore[assignment]

PHOTO_RECORD, PHOTO_SHEET = "photos.json", "-photos.png"  # of `featviz sweep --photos`, beside the pictures
ORPHAN_TIMEOUT = 30.0  # seconds: processes of a sweep that was killed notice at their next step


class FolderInUseError(ValueError):
    """Say that another sweep works in the folder."""


class SweepFolder:
    """The folder of one sweep, for one of its processes.

    Args:
        path: of the folder; created by the first process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        self._manifest: int | None = None  # of this process
        self.skipped_lines = 0  # of the manifest, when it was claimed

    def claim(self, overwrite: bool = False) -> Entry | None:
        """Lock the folder for a sweep, as its first process, and return the settings of an earlier one.

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
            manifest = read_manifest(self.path)
            self.skipped_lines = manifest.skipped
            if manifest.settings is None and rebuild_manifest(self.path) is not None:
                manifest = read_manifest(self.path)
        except BaseException:
            self.close()
            raise
        return manifest.settings

    def resume_or_start(self, settings: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> None:
        """Start with these settings, or go on with them; what processes of a stopped sweep left behind is merged.

        Raises:
            ValueError: when they are not those of the earlier sweep.
        """
        if earlier is not None:
            check_settings(self.path, earlier, settings)
        self.merge(settings)

    def join(self, rank: int) -> None:
        """Open the manifest of one process, after the first one has claimed the folder."""
        self._manifest = os.open(self.path / f"manifest.{rank}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        _locked(self._manifest)

    def record(self, entry: Entry) -> None:
        """Append one line."""
        if self._manifest is None:
            raise RuntimeError("record needs join first")
        line = manifest_line(entry).encode()
        if os.write(self._manifest, line) != len(line):
            raise OSError(28, "No space left on device", str(self.path))

    def wait_for(self, ranks: int) -> bool:
        """Wait until the other processes of the sweep have ended; say whether this file system can tell."""
        try:
            if fcntl is None or self._manifest is None:
                return False
            # Held since it joined, if files can be locked here. All processes ask, so that all give the same answer.
            fcntl.flock(self._manifest, fcntl.LOCK_EX)
        except OSError:
            return False
        finally:
            self._close_manifest()
        for rank in range(1, ranks):
            with (self.path / f"manifest.{rank}.jsonl").open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
        return True

    def rendered(self) -> set[str]:
        """Return the targets of which this run of the sweep has recorded an entry."""
        lines = [line for path in rank_manifests(self.path) for line in read_json_lines(path)[0]]
        return {line["target"] for line in lines if isinstance(line.get("target"), str)}

    def merge(self, settings: Mapping[str, Any], lost: Iterable[Entry] = ()) -> dict[str, Entry]:
        """Put the manifests of all processes, and entries that were lost, into one; return the entries."""
        entries = read_manifest(self.path).entries
        for entry in lost:
            entries.setdefault(entry["target"], entry)
        write_manifest(self.path, settings, entries.values())
        for path in rank_manifests(self.path):
            path.unlink()
        return entries

    def close(self) -> None:
        """Unlock the folder."""
        self._close_manifest()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close_manifest(self) -> None:
        if self._manifest is not None:
            os.close(self._manifest)
            self._manifest = None

    def _wait_for_orphans(self) -> None:
        """Wait a little for processes whose sweep was killed; they stop at their next step."""
        deadline = time.monotonic() + ORPHAN_TIMEOUT
        for path in rank_manifests(self.path):
            with path.open("ab") as file:
                while not _locked(file.fileno()):
                    if time.monotonic() > deadline:
                        raise FolderInUseError(
                            f"output: a process of an earlier sweep still works in {str(self.path)!r}; end it, or wait for it"
                        )
                    time.sleep(0.1)

    def _clear(self) -> None:
        """Remove an earlier sweep, and nothing else: the manifest first, so that half of it is not taken for a sweep."""
        for path in [*rank_manifests(self.path), self.path / "manifest.jsonl"]:
            path.unlink(missing_ok=True)
        for path in list(picture_files(self.path)):
            if "batch_size" not in (read_origin(path) or {}):  # a picture of something else
                continue
            path.unlink()
            layer = path.parent if path.parent.parent == self.path else path.parent.parent
            layer.with_name(f"{layer.name}.png").unlink(missing_ok=True)
        if (self.path / PHOTO_RECORD).is_file():  # sheets of photos stand beside the pictures
            for path in self.path.rglob(f"*{PHOTO_SHEET}"):
                if "photos" in (read_origin(path) or {}):
                    path.unlink()
            (self.path / PHOTO_RECORD).unlink()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the locks behind."""
        return {**self.__dict__, "_lock": None, "_manifest": None}


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
