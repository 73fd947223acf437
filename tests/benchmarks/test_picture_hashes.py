"""The table of picture hashes: two rows, compared with themselves and with another table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import picture_hashes


@pytest.mark.usefixtures("_loud_again")
def test_a_table_equals_itself_and_a_changed_one_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.json"
    rows = ["--only", "views: none", "--only", "image: PixelImage"]
    assert picture_hashes.main([*rows, "--out", str(path)]) == 0
    assert picture_hashes.main([*rows, "--compare", str(path)]) == 0
    table = json.loads(path.read_text())
    assert [entry["shape"] for entry in table["rows"].values()] == [[1, 3, 32, 32]] * 2
    table["rows"]["views: none"]["sha256"] = "0" * 16
    path.write_text(json.dumps(table))
    capsys.readouterr()
    assert picture_hashes.main([*rows, "--compare", str(path)]) == 1
    assert "differs: views: none: 0000000000000000" in capsys.readouterr().out
    assert picture_hashes.main([*rows, "--compare", str(path), "--ignore", "views:"]) == 0
