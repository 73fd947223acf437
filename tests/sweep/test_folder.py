"""The folder of a sweep: where files lie, what a torn line counts, and who may write."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from featviz_pl.io import read_provenance, save_png
from featviz_pl.sweep import folder as room
from featviz_pl.sweep.folder import FolderInUseError, SweepFolder
from featviz_pl.sweep.manifest import Manifest, picture_path, read_manifest, read_origin, rebuild_manifest

SETTINGS = {"network": "ToyNet", "weights": "0123", "seed": 0, "steps": 8, "batch_size": 4}


def entry(unit: int, layer: str = "a", **more: Any) -> dict[str, Any]:
    return {"target": f"{layer}:{unit}", "path": f"{layer}/{unit}.png", "score": unit / 2, **more}


def started(folder: Path, settings: dict[str, Any] = SETTINGS) -> SweepFolder:
    """Claim a folder and join as the first process."""
    process = SweepFolder(folder)
    process.resume_or_start(settings, process.claim())
    process.join(0)
    return process


def save(folder: Path, unit: int, layer: str = "a", units: int = 10, **more: Any) -> Path:
    """Save a picture of a sweep."""
    origin = {
        **SETTINGS,
        "target": f"{layer}:{unit}",
        "objective": f"Channel('{layer}', {unit})",
        "score": unit / 2,
        **more,
    }
    return save_png(torch.full((3, 4, 5), unit / 255), picture_path(folder, f"{layer}:{unit}", units), origin)


# Where files lie.


@pytest.mark.parametrize(
    ("target", "units", "expected"),
    [
        ("features.9:33", 512, "features.9/33.png"),
        ("fc:999", 1000, "fc/999.png"),
        ("fc:999", 1001, "fc/0/999.png"),
        ("fc:1000", 1001, "fc/1/1000.png"),
        ("blocks.0.mlp:12345", 16384, "blocks.0.mlp/12/12345.png"),
        ("heads.de/en:3", 10, "heads.de%2Fen/3.png"),
        ("odd name:3", 10, "odd name/3.png"),
    ],
)
def test_pictures_lie_by_layer_and_unit_and_large_layers_in_thousands(target: str, units: int, expected: str) -> None:
    assert picture_path("atlas", target, units) == Path("atlas") / expected


# What the manifest says.


def test_a_manifest_begins_with_the_settings_and_has_a_line_for_each_unit(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.record(entry(10))
    folder.record({"target": "a:9", "failed": "why"})
    folder.record(entry(2))
    assert folder.merge(SETTINGS) == {"a:10": entry(10), "a:9": {"target": "a:9", "failed": "why"}, "a:2": entry(2)}
    folder.close()
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert lines == [
        {"featviz_sweep": 1, "settings": SETTINGS},
        entry(2),
        {"target": "a:9", "failed": "why"},
        entry(10),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.jsonl", ".lock"}


def test_each_process_only_appends_to_its_own_file(tmp_path: Path) -> None:
    first = started(tmp_path)
    second = SweepFolder(tmp_path)
    second.join(1)
    header = (tmp_path / "manifest.jsonl").read_bytes()
    sizes = []
    for unit in range(3):
        first.record(entry(unit))
        second.record(entry(unit, "b"))
        sizes.append((tmp_path / "manifest.1.jsonl").stat().st_size)
    assert sizes == sorted(set(sizes))
    assert (tmp_path / "manifest.jsonl").read_bytes() == header
    assert read_manifest(tmp_path)[:2] == (
        SETTINGS,
        {f"{layer}:{unit}": entry(unit, layer) for layer in "ab" for unit in range(3)},
    )
    assert first.rendered() == {f"{layer}:{unit}" for layer in "ab" for unit in range(3)}


@pytest.mark.parametrize("torn", ['{"target": "a:7", "pa', '{"target": "a:7"}', "\0\0\0", '{"featviz_sweep": 9'])
def test_a_torn_last_line_is_dropped(torn: str, tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.record(entry(1))
    folder.close()
    with (tmp_path / "manifest.0.jsonl").open("a") as file:
        file.write(torn)
    assert read_manifest(tmp_path).entries == {"a:1": entry(1)}
    again = started(tmp_path)
    again.record(entry(2))
    assert read_manifest(tmp_path)[:2] == (SETTINGS, {"a:1": entry(1), "a:2": entry(2)})


STRANGE = [
    *("not json", "[1]", "3", "[" * 5000, "{}", '{"target": "a:1"}', '{"target": 3, "path": "a/1.png", "score": 1}'),
    *(json.dumps(entry(1, **change)) for change in ({"score": None}, {"score": "1"}, {"score": True}, {"score": [1]})),
    *(
        json.dumps(entry(1, target=target))
        for target in ("a", "a:", "a:all", "a:1,2", "a:1@2", "a:x", "b:1", "a:2", [1])
    ),
    *(json.dumps(entry(1, path=path)) for path in ("/a/1.png", "../a/1.png", "a/2.png", "a/1.jpg", "", "a\0", 1)),
    json.dumps(entry(1)).replace("0.5", "NaN"),
    json.dumps({"target": "a:1", "failed": 3}),
    json.dumps({"target": "a", "failed": "why"}),
]


@pytest.mark.parametrize("line", STRANGE, ids=lambda line: line[:60])
def test_lines_of_another_form_and_paths_out_of_the_folder_are_skipped_and_counted(line: str, tmp_path: Path) -> None:
    header = json.dumps({"featviz_sweep": 1, "settings": SETTINGS})
    (tmp_path / "manifest.jsonl").write_text(f"{header}\n{line}\n{json.dumps(entry(3))}\n")
    assert read_manifest(tmp_path) == Manifest(SETTINGS, {"a:3": entry(3)}, 1)
    folder = started(tmp_path)
    assert folder.skipped_lines == 1
    assert folder.merge(SETTINGS) == {"a:3": entry(3)}
    assert read_manifest(tmp_path).skipped == 0


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.0.jsonl"])
def test_a_manifest_that_is_no_file_counts_for_nothing(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    save(tmp_path, 1)
    assert SweepFolder(tmp_path).claim() == SETTINGS
    assert read_manifest(tmp_path).entries == {"a:1": entry(1)}


def test_the_latest_entry_counts(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.record(entry(1, score=1.0))
    folder.record(entry(1, score=2.0))
    assert read_manifest(tmp_path).entries["a:1"]["score"] == 2.0


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"featviz_sweep": 2, "settings": {}}\n')
    folder = SweepFolder(tmp_path)
    with pytest.raises(
        ValueError, match=r"has format 2, and this version reads 1; go on with the version that wrote it"
    ):
        folder.claim()
    assert SweepFolder(tmp_path).claim(overwrite=True) is None  # the one that was refused has let go of the folder


def test_a_manifest_is_rebuilt_from_the_pictures(tmp_path: Path) -> None:
    for unit in (2, 10, 1):
        save(tmp_path, unit)
    save(tmp_path, 1003, "b", units=2000)
    save(tmp_path, 5).write_bytes(b"torn")
    save_png(torch.rand(3, 4, 4), tmp_path / "photos" / "7.png")  # somebody's own
    save_png(torch.rand(3, 4, 4), tmp_path / "a.png", {**SETTINGS, "target": "a"})  # a sheet
    folder = SweepFolder(tmp_path)
    assert folder.claim() == SETTINGS
    expected = {f"a:{unit}": entry(unit) for unit in (1, 2, 10)} | {
        "b:1003": {**entry(1003, "b"), "path": "b/1/1003.png"}
    }
    assert read_manifest(tmp_path)[:2] == (SETTINGS, expected)
    assert list(read_manifest(tmp_path).entries) == ["a:1", "a:2", "a:10", "b:1003"]


def test_pictures_of_two_sweeps_make_no_manifest(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2, seed=5)
    with pytest.raises(
        ValueError, match=r"holds pictures of different sweeps, with seed \d and \d; give another folder"
    ):
        rebuild_manifest(tmp_path)


def test_an_empty_folder_has_nothing_to_rebuild(tmp_path: Path) -> None:
    assert rebuild_manifest(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 9}, "steps: the pictures in .* were made with 8, and this asks for 9; .*--overwrite"),
        ({"weights": "4567"}, "weights: .* '0123', and this asks for '4567'"),
        ({"batch_size": 2}, "batch_size: .* 4, and this asks for 2"),
        ({"new": 1}, "new: .* None, and this asks for 1"),
    ],
    ids=str,
)
def test_other_settings_are_refused_by_name_with_both_values(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    started(tmp_path).close()
    folder = SweepFolder(tmp_path)
    earlier = folder.claim()
    with pytest.raises(ValueError, match=message):
        folder.resume_or_start({**SETTINGS, **change}, earlier)
    with pytest.raises(ValueError, match=r"steps: .* 8, and this asks for None"):
        folder.resume_or_start({name: value for name, value in SETTINGS.items() if name != "steps"}, earlier)


def test_overwrite_removes_the_sweep_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 1003, "b", units=2000)
    save_png(torch.rand(3, 4, 4), tmp_path / "a.png", {**SETTINGS, "target": "a"})
    kept = [
        save_png(torch.rand(3, 4, 4), tmp_path / "photos" / "7.png"),
        save_png(torch.rand(3, 4, 4), tmp_path / "a" / "mine.png", SETTINGS),
        save_png(torch.rand(3, 4, 4), tmp_path / "photos.png"),
    ]
    started(tmp_path).close()
    assert SweepFolder(tmp_path).claim(overwrite=True) is None
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock") == sorted(kept)


def test_a_full_disk_in_the_middle_of_a_line_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = started(tmp_path)
    folder.record(entry(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(OSError, match="No space left"):
        folder.record(entry(2))
    assert read_manifest(tmp_path).entries == {"a:1": entry(1)}


def test_a_record_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="needs join first"):
        SweepFolder(tmp_path).record(entry(1))


# What a whole picture is.


def test_a_picture_that_is_cut_anywhere_is_no_picture(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    whole = path.read_bytes()
    assert read_origin(path) == read_provenance(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_origin(path) is None, length
    path.write_bytes(whole)
    assert read_origin(path) is not None


def test_what_is_no_picture_of_a_sweep_has_no_origin(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("missing.png", ".", "pipe.png"):
        assert read_origin(tmp_path / name) is None
    for origin in (None, [1, 2], 3, "text"):
        path = save_png(torch.rand(3, 4, 4), tmp_path / "strange.png", origin)  # type: ignore[arg-type]
        assert read_origin(path) is None


# Who may write.


def test_a_second_sweep_of_a_folder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = started(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(
            FolderInUseError, match=r"output: another sweep works in .*; wait for it, or give another folder"
        ):
            SweepFolder(tmp_path).claim(overwrite)
    first.record(entry(1))
    assert read_manifest(tmp_path)[:2] == (SETTINGS, {"a:1": entry(1)})
    first.close()
    assert SweepFolder(tmp_path).claim() == SETTINGS


def test_a_process_that_outlived_its_sweep_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, orphan = started(tmp_path), SweepFolder(tmp_path)
    orphan.join(1)
    first.close()
    monkeypatch.setattr(room, "ORPHAN_TIMEOUT", 0.0)
    with pytest.raises(FolderInUseError, match="a process of an earlier sweep still works"):
        SweepFolder(tmp_path).claim()
    orphan.record(entry(1))
    orphan.close()
    again = started(tmp_path)
    assert read_manifest(tmp_path).entries == {"a:1": entry(1)}
    again.close()


def test_what_a_killed_process_was_about_to_write_is_removed(tmp_path: Path) -> None:
    folder = started(tmp_path)
    for name in (".manifest.1.part", "a/.3.17.part", "b/1/.1003.17.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    folder.close()
    again = SweepFolder(tmp_path)
    again.claim()
    assert [path.name for path in tmp_path.rglob("*.part")] == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("something else")
    with pytest.raises(ValueError, match="output: cannot write into"):
        SweepFolder(tmp_path / place).claim()


def test_a_folder_travels_without_its_locks(tmp_path: Path) -> None:
    folder = started(tmp_path)
    for copied in (copy.deepcopy(folder), pickle.loads(pickle.dumps(folder))):
        assert copied.path == tmp_path
        copied.close()  # lets go of nothing that is the other's
        with pytest.raises(FolderInUseError):
            copied.claim()
    folder.close()
