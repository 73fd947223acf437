"""JSON that others may have written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from featviz_pl.io.json_files import parse_object, path_inside, read_json_lines

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2]", "3", "null", '"text"', '{"a": NaN}', '{"a": -Infinity}', DEEP, f'{{"a": {DEEP}', b"\xff{}"],
    ids=range(11),
)
def test_what_is_no_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_object(text)


def test_objects_are_read_with_numbers_that_are_not_finite_only_where_these_are_allowed() -> None:
    assert parse_object('{"a": [1, {"ä": 0.5}]}') == parse_object('{"a": [1, {"ä": 0.5}]}'.encode())
    assert parse_object('{"a": -Infinity}', finite=False) == {"a": -float("inf")}


def test_lines_of_another_form_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\nnull\n\n' + DEEP.encode() + b'\n\xff\n{"b": NaN}\n{"b": 2}\r\n{"c": 3}')
    assert read_json_lines(path) == ([{"a": 1}, {"b": 2}], 5)


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe"])
def test_lines_are_read_from_regular_files_only(tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r".+"):
        read_json_lines(tmp_path / kind)


@pytest.mark.parametrize("name", [None, 3, "", "/etc/passwd", "..", "../a.png", "a/../../b.png", "a\0b"])
def test_paths_out_of_the_folder_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="path: "):
        path_inside("atlas", name)


def test_paths_in_the_folder_are_joined() -> None:
    assert path_inside("atlas", "a/./b/../33.png") == Path("atlas/a/33.png")
