"""``benchmarks/quality.py``: its tables, and that it runs in small."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy

from featviz_pl.io import as_saved, save_png
from featviz_pl.metrics import Agreement
from featviz_pl.networks import FrozenNetwork, load_network

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def result(held_out: list[float], **summary: float | None) -> dict[str, Any]:
    """Return the results of one preset, with two channels and two classes."""
    of_channels = {"percentile": 99.96, "slope": -1.056, "clipped": 0.0431, "high_frequency": 0.2, "nearest": 0.76}
    of_channels |= {"forced_choice": None}  # type: ignore[dict-item]
    of_sets = {"color_distance": 0.3, "variation": 0.25, "pairwise_distance": 0.22, "vendi": 2.5, "agreement": None}
    channels = {**of_channels, **of_sets, "agreement_with_the_reference": 0.5, **summary}
    classes = {**of_sets, "agreement": 0.75, "recognised": 7, "transfer": 0.999, "slope": -1.01}
    rows, path = [{"held_out": value} for value in held_out], {"a": 0.5, "b": None}
    return {
        "channels": {"rows": rows, "summary": channels, "path": path},
        "classes": {"rows": [{"held_out": 14.0}, {"held_out": -1.0}], "summary": classes},
    }


def test_scores_of_units_of_any_scale_have_equal_weight(benchmark: dict[str, Any]) -> None:
    against = benchmark["against"]
    rows = [[{"held_out": value} for value in values] for values in ([2.0, 400.0], [1.0, 100.0])]
    assert against(*rows) == pytest.approx((2 * 4) ** 0.5)
    assert against(rows[0], rows[0]) == pytest.approx(1.0)
    assert against([{"held_out": -5.0}], [{"held_out": 1.0}]) == pytest.approx(1e-3)  # does not respond at all


def test_the_tables_have_a_row_for_each_preset(benchmark: dict[str, Any]) -> None:
    table = {"own": result([2.0, 400.0]), "lucid": result([1.0, 100.0], agreement_with_the_reference=None)}
    lines = benchmark["markdown"](table).splitlines()
    assert lines == [
        "| `own` | 2.83 | 100.0 | -1.06 | 0.043 | 0.20 | 0.76 | – | 6.5 | 7 | 1.00 | -1.01 |",
        "| `lucid` | 1.00 | 100.0 | -1.06 | 0.043 | 0.20 | 0.76 | – | 6.5 | 7 | 1.00 | -1.01 |",
        "",
        "| `own` | 0.30 | 0.25 | 0.22 | 2.50 | – | 0.50 | 0.50 | – | 0.30 | 0.25 | 0.22 | 2.50 | 0.75 |",
        "| `lucid` | 0.30 | 0.25 | 0.22 | 2.50 | – | – | 0.50 | – | 0.30 | 0.25 | 0.22 | 2.50 | 0.75 |",
    ]
    assert benchmark["markdown"]({"own": table["own"]}).startswith("| `own` | – | ")


def test_agreement_is_over_the_seeds_and_over_the_recipes(benchmark: dict[str, Any], tmp_path: Path) -> None:
    pictures = as_saved(torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    files = [save_png(picture, tmp_path / f"{index}.png") for index, picture in enumerate(pictures)]
    expected = Agreement()
    expected.update(pictures, ["a:1", "a:2", "a:1", "a:2"])
    assert benchmark["agreement"]([files[:2], files[2:]], ["a:1", "a:2"]) == pytest.approx(float(expected.compute()))
    assert benchmark["agreement"]([files], ["a:1", "a:2", "a:1", "a:2"]) is None

    def preset(files: list[Path]) -> dict[str, Any]:
        rows = [{"picture": str(file), "target": target} for file, target in zip(files, ("a:1", "a:2"))]
        return {"channels": {"rows": rows, "summary": {}}}

    table = {"own": preset(files[:2]), "lucid": preset(files[2:])}
    benchmark["compare_with_the_reference"](table)
    summaries = [entry["channels"]["summary"]["agreement_with_the_reference"] for entry in table.values()]
    assert summaries == [pytest.approx(float(expected.compute())), None]


@pytest.mark.slow
def test_the_benchmark_runs_in_small_and_reuses_pictures(
    benchmark: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded = load_network("embedded")
    judge = FrozenNetwork(toy(classes=10), size=40, classes=embedded.classes, name="toy")

    def load(name: str, weights: str = "DEFAULT") -> FrozenNetwork:
        return embedded if name == "embedded" else judge

    main = benchmark["main"]
    monkeypatch.setitem(main.__globals__, "LAYERS", {"features.2": 8, "features.5": 8})
    monkeypatch.setattr("featviz_pl.load_network", load)
    for index in range(24):
        photo = torch.rand(3, 50, 50, generator=torch.Generator().manual_seed(index))
        save_png(photo, tmp_path / "photos" / f"{index:02}.png")
    arguments = ["--presets", "featviz", "lucid", "--steps", "8", "--rounds", "1", "--seeds", "1", "2"]
    folders = ["--photos", str(tmp_path / "photos"), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["quality", *arguments, *folders])
    printed, pictures = [], []
    for _ in range(2):
        main()
        printed.append(capsys.readouterr().out.splitlines()[-5:])
        pictures.append({file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "pictures").rglob("*.png")})
    assert printed[0] == printed[1]
    assert pictures[0] == pictures[1]
    assert [line.split(" | ")[0] for line in printed[0]] == ["| `featviz`", "| `lucid`", "", "| `featviz`", "| `lucid`"]
    table = json.loads((tmp_path / "out" / "quality.json").read_text())["table"]
    channels = table["featviz"]["channels"]
    targets = [f"features.{layer}:{unit}" for layer in (2, 5) for unit in (1, 3, 5, 7)]
    assert [row["target"] for row in channels["rows"]] == targets
    values = {name: value for name, value in channels["summary"].items() if name not in ("score", "held_out")}
    assert all(isinstance(value, float) for value in values.values())
    assert {"agreement", "agreement_with_the_reference", "forced_choice", "vendi"} <= set(values)
    assert len(table["lucid"]["classes"]["rows"]) == 10
    for name in ("featviz", "lucid"):
        assert (tmp_path / "out" / f"{name}-channels.jpg").is_file()
