"""The examples that train a classifier, on a handful of photos and at toy size."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from featviz_pl.io import read_picture, read_provenance

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text()
SMALL = "--size 32 --workers 0"

# Lightning's advice for faster loading and denser logs, which fits no training of eight photos.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning", "ignore:.*smaller than the logging interval:UserWarning"
)

Run = Callable[[str, str], None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write photos of two classes, eight to train on and four held out, laid out as Imagenette is."""
    root, generator = tmp_path_factory.mktemp("data"), torch.Generator().manual_seed(0)
    for split, count in (("train", 4), ("val", 2)):
        for wnid in ("n01440764", "n02102040"):
            folder = root / "imagenette2-160" / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (5, 6, 3), dtype=torch.uint8, generator=generator).numpy()
                Pillow.fromarray(pixels).resize((48, 40)).save(folder / f"{wnid}_{number}.JPEG")
    return root


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run a script as it stands, beside its neighbours, and leave the global generator alone."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.syspath_prepend(str(EXAMPLES / "training"))

        def script(name: str, arguments: str) -> None:
            runpy.run_path(str(EXAMPLES / "training" / name))["main"](f"{SMALL} {arguments}".split())

        yield script
    sys.modules.pop("classifier", None)


@pytest.fixture(scope="module")
def trained(data: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for two epochs with the monitor."""
    output = tmp_path_factory.mktemp("runs")
    run("classifier.py", f"--data {data} --output {output} --epochs 2 --steps 2")
    return output


def test_the_classifier_leaves_a_checkpoint_pictures_in_tensorboard_and_a_film(trained: Path) -> None:
    assert (trained / "classifier.ckpt").is_file()
    events = EventAccumulator(str(next((trained / "classifier").glob("version_*"))))
    events.Reload()
    assert [image.step for image in events.Images("features")] == [1, 2]  # one batch per epoch
    assert "accuracy" in events.Tags()["scalars"]
    sheets = sorted((trained / "features").glob("step-*.png"))
    assert [read_provenance(sheet)["epoch"] for sheet in sheets] == [0, 1]
    first, second = map(read_picture, sheets)
    assert not torch.equal(first, second)
    with Pillow.open(trained / "features" / "film.webp") as film:
        assert getattr(film, "n_frames", 1) == 2
    assert read_picture(trained / "features" / "film.png").shape[1] > 8 * 32


def test_the_photos_that_excite_channels_get_a_frame(
    data: Path, run: Run, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = f"--data {data} --checkpoint {trained / 'classifier.ckpt'} --output {tmp_path}"
    run("top_activations.py", f"{paths} --channels net.layer1:0-1 --k 3")
    index = json.loads((tmp_path / "index.json").read_text())["units"]
    assert list(index) == ["net.layer1:0", "net.layer1:1"]
    photos = [[photo["photo"] for photo in unit["top"]] for unit in index.values()]
    assert all(len(numbers) == 3 and set(numbers) < {0, 1, 2, 3} for numbers in photos)
    assert read_picture(tmp_path / "photos.png").shape == (3, 2 * 34 - 2, 3 * 34 - 2)
    assert re.search(r"^net.layer1:0: \d x (tench|English springer)", capsys.readouterr().out, re.MULTILINE)


def test_the_pipeline_ends_with_a_picture_of_every_unit(data: Path, run: Run, tmp_path: Path) -> None:
    run("pipeline.py", f"--data {data} --output {tmp_path} --epochs 1 --steps 2 --layers net.stem:0-2 output:all")
    features = tmp_path / "features"
    assert len(list((features / "net.stem").glob("*.png"))) == 3
    assert len(list((features / "output").glob("*.png"))) == 10
    weights = torch.load(tmp_path / "network.pt", weights_only=True)
    assert weights["head.2.weight"].shape == (10, 256)
    origin = read_provenance(features / "output" / "7.png")
    assert (origin["target"], origin["network"], origin["steps"]) == ("output:7", "Classifier", 2)


def test_the_readme_has_the_commands_and_a_small_film() -> None:
    for name in ("classifier.py", "top_activations.py", "pipeline.py"):
        assert f"python examples/training/{name} --data " in README
    film = EXAMPLES / "pictures" / "training_film.jpg"
    assert '<img src="pictures/training_film.jpg"' in README
    assert "examples/pictures/training_film.jpg" in (EXAMPLES.parent / "README.md").read_text()
    assert read_picture(film).shape == (3, 4 * 98 - 2, 10 * 98 - 2)  # four units after each of ten epochs
    assert film.stat().st_size < 150_000
