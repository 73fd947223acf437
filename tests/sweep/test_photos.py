"""``featviz sweep --photos``: the photos beside each picture are those of a plain look at all of them; nothing is made twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image as Pillow
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from toys import QUIET, toy

from featviz_pl.cli.main import main
from featviz_pl.io import read_provenance
from featviz_pl.networks import receptive_fields
from featviz_pl.sweep.photo_sheets import CAPTION, GAP, MARGIN, unit_sheet
from featviz_pl_callbacks.top_activations import TopActivations

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
SIDE, PHOTOS = 16, 12
QUICK = ["--steps", "2", "--size", str(SIDE), "--batch-size", "4", "--accelerator", "cpu"]
PICTURES = torch.randint(0, 256, (PHOTOS, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)


def run(*arguments: str) -> int:
    try:
        return main(["sweep", *arguments])
    except SystemExit as stopped:
        return int(stopped.code or 0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write photos of the size that the network sees, so that nothing is resampled, and a damaged one."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for index, levels in enumerate(PICTURES):
        Pillow.fromarray(levels.permute(1, 2, 0).numpy()).save(
            folder / ("below" if index % 2 else ".") / f"{index:02d}.png"
        )
    (folder / "damaged.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture
def sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Return what runs a sweep of the toy network, and gives its exit code, report and messages."""

    def swept(
        units: str, *arguments: str, network: str = "toys:toy", folder: str = "atlas"
    ) -> tuple[int, dict[str, Any], str]:
        code = run(network, units, "-o", str(tmp_path / folder), *QUICK, *arguments, "--json")
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {}, err

    return swept


def brute_force() -> tuple[Any, Any]:
    """Return the scores (photos, units) of the toy's last convolution, and which position is highest."""
    with torch.no_grad():
        maps = toy().eval().features(PICTURES.float() / 255).numpy()
    flat = maps.reshape(PHOTOS, maps.shape[1], -1)
    return flat.mean(-1), flat.argmax(-1)


def number(name: str) -> int:
    return int(Path(name).stem)


def test_the_photos_are_those_of_a_plain_look_at_all(sweep: Any, photos: Path, tmp_path: Path) -> None:
    code, report, err = sweep("features.5:0-4", "--photos", str(photos), "--photo-count", "3")
    assert code == 0
    keys = ("photos", "photo_sheets", "photo_sheets_new", "photos_read", "photos_unreadable", "without_photos")
    assert [report[key] for key in keys] == [str(photos), 5, 5, PHOTOS, 1, 0]
    assert err.startswith("featviz sweep: 1 photos cannot be read: damaged.jpg (cannot read a picture")
    scores, places = brute_force()
    seen = receptive_fields(toy(), "features.5", size=SIDE).reshape(-1, 4).numpy()
    side = (seen[:, 2:] - seen[:, :2]).max(0)
    for unit in range(5):
        origin = read_provenance(tmp_path / "atlas" / "features.5" / f"{unit}-photos.png")
        assert origin["target"] == f"features.5:{unit}"
        assert origin["score"] == read_provenance(tmp_path / "atlas" / "features.5" / f"{unit}.png")["score"]
        assert [number(name) for name, *_ in origin["shown"]] == np.argsort(-scores[:, unit])[:3].tolist()
        for name, score, (top, left, bottom, right) in origin["shown"]:
            photo = number(name)
            assert score == pytest.approx(scores[photo, unit], rel=1e-5)
            box = seen[places[photo, unit]]
            assert (bottom - top, right - left) == tuple(side)  # all parts have one size, also at borders
            assert top <= box[0] < box[2] <= bottom <= SIDE
            assert left <= box[1] < box[3] <= right <= SIDE


def test_a_sheet_shows_the_picture_and_the_parts_of_the_photos(sweep: Any, photos: Path, tmp_path: Path) -> None:
    sweep("features.5:2", "--photos", str(photos), "--photo-count", "1")
    with Pillow.open(tmp_path / "atlas" / "features.5" / "2-photos.png") as opened:
        sheet = np.array(opened).astype(int)
    origin = read_provenance(tmp_path / "atlas" / "features.5" / "2-photos.png")
    name, _, (top, left, bottom, right) = origin["shown"][0]
    height = 160  # what small pictures are enlarged to
    assert sheet.shape == (CAPTION + height + MARGIN, height + MARGIN + height + 2 * MARGIN, 3)
    with Pillow.open(tmp_path / "atlas" / "features.5" / "2.png") as picture:
        expected = np.array(picture.resize((height, height), Pillow.Resampling.BICUBIC)).astype(int)
    np.testing.assert_array_equal(sheet[CAPTION : CAPTION + height, :height], expected)
    levels = PICTURES[number(name), :, top:bottom, left:right].permute(1, 2, 0).numpy()
    expected = np.array(Pillow.fromarray(levels).resize((height, height), Pillow.Resampling.BICUBIC)).astype(int)
    np.testing.assert_array_equal(
        sheet[CAPTION : CAPTION + height, height + MARGIN : height + MARGIN + height], expected
    )
    assert (sheet[:CAPTION] < 200).any()  # the caption
    assert (sheet[:CAPTION] == 255).mean() > 0.5


def test_six_photos_stand_in_two_rows_and_what_is_missing_stays_white() -> None:
    patch = Pillow.new("RGB", (10, 5), (0, 0, 255))
    sheet = np.array(unit_sheet(None, (200, 100), [patch, None, patch], 6, ("net.a:1", "no photos")))
    cell = (200 - GAP) // 2
    assert sheet.shape == (CAPTION + 200 + MARGIN, 100 + MARGIN + 3 * cell + 2 * GAP + 2 * MARGIN, 3)
    block = sheet[CAPTION : CAPTION + 200, 100 + MARGIN :]
    assert (sheet[CAPTION : CAPTION + 200, :100] == 255).all()
    blue = (block == [0, 0, 255]).all(-1)
    first, missing, third = (blue[:cell, start : start + cell] for start in (0, cell + GAP, 2 * (cell + GAP)))
    assert (first.sum(), missing.sum()) == (third.sum(), 0)
    assert first.any(0).sum() == cell  # twice as wide as high
    assert first.any(1).sum() == round(cell / 2)
    assert not blue[cell:].any()


def test_a_restart_makes_only_what_is_missing(
    sweep: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep("features.5:0-2", "--photos", str(photos))[1]["photo_sheets_new"] == 3
    folder = tmp_path / "atlas"
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*-photos.png") if path.name != "1-photos.png"}
    whole = (folder / "features.5-photos.png").read_bytes()
    (folder / "features.5" / "1-photos.png").write_bytes(
        (folder / "features.5" / "1-photos.png").read_bytes()[:100]
    )  # torn

    def look(*arguments: Any, **more: Any) -> None:
        raise AssertionError("looked at all photos again")

    with monkeypatch.context() as patched:
        patched.setattr("featviz_pl.sweep.photos.photo_batches", look)
        report = sweep("features.5:0-2", "--photos", str(photos))[1]
    assert (report["photo_sheets"], report["photo_sheets_new"], report["photos_unreadable"]) == (3, 1, 1)
    assert {path for path, stamp in kept.items() if path.stat().st_mtime_ns != stamp} == set()
    assert (folder / "features.5-photos.png").read_bytes() == whole
    report = sweep("features.5:1-4", "--photos", str(photos))[1]  # two more units
    assert (report["done"], report["photo_sheets"], report["photo_sheets_new"]) == (2, 4, 2)
    with (
        Pillow.open(folder / "features.5-photos.png") as all_five,
        Pillow.open(folder / "features.5" / "4-photos.png") as one,
    ):
        assert all_five.width * all_five.height >= 5 * one.width * one.height


def test_other_photos_or_another_sweep_make_other_sheets(sweep: Any, photos: Path, tmp_path: Path) -> None:
    arguments = ("features.5:0-1", "--photos", str(photos))
    sweep(*arguments)
    assert sweep(*arguments, "--photo-count", "2")[1]["photo_sheets_new"] == 2
    assert sweep(*arguments, "--photo-count", "2")[1]["photo_sheets_new"] == 0
    assert sweep(*arguments, "--photo-count", "2", "--seed", "4", "--overwrite")[1]["photo_sheets_new"] == 2
    (photos / "00.png").unlink()
    assert sweep(*arguments, "--photo-count", "2")[2].startswith("featviz sweep: error: seed:")  # as without photos
    assert sweep(*arguments, "--photo-count", "2", "--seed", "4")[1]["photo_sheets_new"] == 2


def test_the_sheet_of_a_layer_has_all_units_of_this_sweep_and_none_of_an_earlier_one(
    sweep: Any, photos: Path, tmp_path: Path
) -> None:
    arguments, whole = ("--photos", str(photos)), tmp_path / "atlas" / "features.5-photos.png"
    sweep("features.5:0-1", *arguments)
    two = whole.read_bytes()
    sweep("features.5:0-2", *arguments)
    three = whole.read_bytes()
    whole.write_bytes(two)  # as where Ctrl-C came after the last unit
    assert sweep("features.5:0-2", *arguments)[1]["photo_sheets_new"] == 0
    assert whole.read_bytes() == three
    sweep("features.5:0", *arguments, "--seed", "4", "--overwrite")
    with Pillow.open(whole) as layer, Pillow.open(tmp_path / "atlas" / "features.5" / "0-photos.png") as unit:
        assert layer.size == unit.size
        np.testing.assert_array_equal(np.array(layer), np.array(unit))


def test_photos_that_are_replaced_are_looked_at_again_whatever_their_names_are(sweep: Any, photos: Path) -> None:
    arguments = ("features.5:0-1", "--photos", str(photos))
    sweep(*arguments)
    Pillow.new("RGB", (SIDE, SIDE), "red").save(photos / "00.png")
    assert sweep(*arguments)[1]["photo_sheets_new"] == 2
    try:
        shutil.copy(photos / "00.png", os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    code, report, _ = sweep(*arguments)
    assert (code, report["photos_read"]) == (0, PHOTOS + 1)


def test_a_network_whose_channels_no_photo_has_is_refused_before_anything_is_rendered(
    sweep: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two_channels.py").write_text(
        "import torch\n\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3))\n"
    )
    code, _, err = sweep("0:0", "--photos", str(photos), network="two_channels:make")
    assert code == 2
    assert err.startswith("featviz sweep: error: photos: the network takes 2 channels, and photos in files have 1 or 3")
    assert not list(tmp_path.glob("atlas/**/*.png"))


def test_a_unit_that_failed_has_its_photos(sweep: Any, photos: Path, tmp_path: Path) -> None:
    code, report, _ = sweep("1:all", "--photos", str(photos), "--steps", "20", network="sweep_networks:partly_dead")
    assert (code, report["failed"], report["photo_sheets"]) == (3, 1, 3)
    origin = read_provenance(tmp_path / "atlas" / "1" / "1-photos.png")
    assert (origin["score"], len(origin["shown"])) == (None, 6)
    assert "nothing turns the unit on" in origin["failed"]


def test_evaluation_and_a_lost_manifest_take_no_sheet_for_a_picture(sweep: Any, photos: Path, tmp_path: Path) -> None:
    from featviz_pl.metrics.evaluation import is_sheet
    from featviz_pl.sweep.manifest import read_manifest, rebuild_manifest

    sweep("features.5:0-1", "--photos", str(photos))
    folder = tmp_path / "atlas"
    assert all(is_sheet(read_provenance(path)) for path in folder.rglob("*-photos.png"))
    before = read_manifest(folder)
    (folder / "manifest.jsonl").unlink()
    rebuild_manifest(folder)
    assert read_manifest(folder) == before


def test_layers_of_more_than_a_thousand_units_have_folders(tmp_path: Path) -> None:
    from featviz_pl.sweep.photo_sheets import sheet_path

    assert sheet_path(tmp_path, "fc:1234", 2000) == tmp_path / "fc" / "1" / "1234-photos.png"


# What TopActivations wrote.


class Looker(LightningModule):
    """Show pictures to a network, as people's modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = toy()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        y: Tensor = self.net(batch[0])
        return y


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a folder that TopActivations wrote, of four units of a layer and all of another."""
    top = TopActivations(["net.features.5:0-3", "net.head:all"], k=4, folder=tmp_path / "written", least=0, random=0)
    loader = DataLoader(TensorDataset(PICTURES.float() / 255), 6)
    Trainer(**QUIET, callbacks=[top]).predict(Looker(), loader, return_predictions=False)
    return tmp_path / "written"


def test_an_index_of_somebodys_module_is_matched_by_layer_and_unit(sweep: Any, written: Path, tmp_path: Path) -> None:
    code, report, err = sweep("features.5:2-5", "--photos", str(written))
    assert (code, err) == (0, "featviz sweep: 2 units have no photos: features.5:4, features.5:5\n")
    assert (report["photo_sheets"], report["photos_read"], report["without_photos"]) == (4, None, 2)
    scores, _ = brute_force()
    index = json.loads((written / "index.json").read_text())["units"]
    for unit in (2, 3):
        shown = read_provenance(tmp_path / "atlas" / "features.5" / f"{unit}-photos.png")["shown"]
        assert [name for name, *_ in shown] == [f"net.features.5/{unit}/top-{place}.png" for place in range(1, 5)]
        assert [one["photo"] for one in index[f"net.features.5:{unit}"]["top"]] == np.argsort(-scores[:, unit])[
            :4
        ].tolist()
        assert [score for _, score, _ in shown] == pytest.approx(np.sort(-scores[:, unit])[:4] * -1, rel=1e-5)
    assert read_provenance(tmp_path / "atlas" / "features.5" / "4-photos.png")["shown"] == []


def test_patches_that_are_gone_are_counted_and_said(sweep: Any, written: Path) -> None:
    (written / "net.features.5" / "1" / "top-2.png").unlink()
    code, report, err = sweep("features.5:0-3", "--photos", str(written))
    assert (code, report["photos_unreadable"], report["photo_sheets"]) == (0, 1, 4)
    assert err.startswith("featviz sweep: 1 photos cannot be read: net.features.5/1/top-2.png")


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no folder": (["--photos", "nowhere"], "photos: there is no folder 'nowhere'"),
    "empty folder": (["--photos", "empty"], "photos: 'empty' holds no image files"),
    "nothing readable": (
        ["--photos", "damaged"],
        "photos: none of 1 files in 'damaged' can be read; cannot read a picture from 'damaged/x.jpg'",
    ),
    "too few photos": (["--photos", "photos", "--photo-count", "20"], "'photos' holds 13; give --photo-count 13"),
    "output among the photos": (["--photos", "."], "lies in '.', and the pictures would count as photos the next time"),
    "no photo": (["--photos", "photos", "--photo-count", "0"], "photo_count must be at least 1, got 0"),
    "count alone": (["--photo-count", "3"], "photo_count: belongs to --photos DIR"),
    "too few in the index": (
        ["--photos", "written", "--photo-count", "5"],
        "photo_count: 5 photos of each feature, and the",
    ),
    "index of other layers": (["--photos", "other"], "has photos for none of the units of features.5; known: net.conv"),
    "no index": (["--photos", "bad"], "is no index of TopActivations"),
    "two layers": (
        ["--photos", "two"],
        "ambiguous: several of its layers end in 'features.5' (a.features.5, b.features.5)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(
    mistake: str, sweep: Any, photos: Path, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "damaged", "other", "bad", "two"):
        Path(name).mkdir()
    Path("damaged/x.jpg").write_bytes(b"no photo")
    shutil.copy("damaged/x.jpg", "bad/index.json")
    one: dict[str, Any] = {"top": [{"file": "x.png", "score": 1.0}]}
    Path("other/index.json").write_text(json.dumps({"units": {"net.conv:0": one}}))
    Path("two/index.json").write_text(json.dumps({"units": {"a.features.5:0": one, "b.features.5:0": one}}))
    arguments, message = MISTAKES[mistake]
    code, report, err = sweep("features.5:0-1", *arguments)
    assert (code, report, err.count("\n")) == (2, {}, 1), err
    assert message in err
    rendered = list((tmp_path / "atlas").rglob("*.png")) if (tmp_path / "atlas").exists() else []
    assert not rendered or mistake == "nothing readable"  # all else is refused before anything is rendered


@pytest.mark.slow
def test_several_processes_leave_the_sheets_of_one(photos: Path, sweep: Any, tmp_path: Path) -> None:
    sweep("features.5:0-4", "--photos", str(photos))
    arguments = [
        "sweep",
        "toys:toy",
        "features.5:0-4",
        "-o",
        str(tmp_path / "two"),
        *QUICK,
        "--photos",
        str(photos),
        "--devices",
        "2",
    ]
    paths = [str(Path(__file__).parents[1] / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "featviz_pl", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["photo_sheets_new"] == 5
    sheets = list((tmp_path / "atlas").rglob("*-photos.png"))
    assert len(sheets) == 6
    for path in sheets:
        assert (tmp_path / "two" / path.relative_to(tmp_path / "atlas")).read_bytes() == path.read_bytes()
