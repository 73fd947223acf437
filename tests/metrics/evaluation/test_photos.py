"""Photos in the table of an evaluation, and what an evaluation leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluated import ALWAYS, make_photos, named, noise
from metric_cases_transfer import color_judge
from toys import toy

from featviz_pl import metrics
from featviz_pl.io import save_png
from featviz_pl.metrics import Evaluation, evaluate
from featviz_pl.networks import FrozenNetwork


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


SMALL = metrics.Embedding(size=48)


def compare(*arguments: Any, **options: Any) -> Evaluation:
    """Evaluate with few views and a small embedding, which is quick."""
    return evaluate(*arguments, **options, views=1, embedding=SMALL)


# Photos.


def test_photos_are_measured_at_the_size_of_the_pictures(photos: Path) -> None:
    calls: list[tuple[int, int]] = []
    arguments: dict[str, Any] = {"photos": photos, "progress": lambda *counts: calls.append(counts)}
    result = compare(noise(2), toy(), ["features.5:1", "features.0:2"], **arguments)
    assert result.columns == [*ALWAYS[:4], "percentile", *ALWAYS[4:], "nearest", "forced_choice"]
    record = metrics.measure_activations(toy(), photos, ["features.5", "features.0"], size=(40, 48))
    for row, layer, unit in zip(result.rows, ("features.5", "features.0"), (1, 2)):
        below = (record.values[layer][:, unit] < row["score"]).double().mean()
        assert row["percentile"] == pytest.approx(100 * float(below))
    assert (result.settings["photos"], result.settings["photo_size"]) == (12, [40, 48])
    assert "photos: 1 files could not be read and were left out: broken.jpg" in result.notes
    assert any(note.endswith("are smaller than 40 x 48 and were enlarged") for note in result.notes)
    assert calls[-1][0] == calls[-1][1] == 26
    assert calls == sorted(calls)


def test_the_controls_of_a_forced_choice_are_the_pictures_of_other_targets(photos: Path) -> None:
    pictures, larger = noise(4), noise(1, 64, 64, seed=7)
    targets = ["features.5:1", "features.5:2", "features.5:2", "features.5:1", "features.5:3@2,2"]
    result = compare([*pictures[:2], larger[0], *pictures[2:]], toy(), targets, photos=photos)
    record, embedding = metrics.measure_activations(toy(), photos, "features.5", size=224), SMALL
    photo_vectors = metrics.embed_photos(embedding, photos).values.double()
    vectors = torch.cat([embedding(pictures[:2]), embedding(larger), embedding(pictures[2:])]).double()
    for row, vector in zip(result.rows[:4], vectors):
        contrast = vectors[[target != row["target"] for target in targets]].mean(0)
        indices = record.strongest(row["target"], 6), record.weakest(row["target"], 6)
        strong, weak = (photo_vectors[part] @ (vector - contrast) for part in indices)
        assert row["forced_choice"] == pytest.approx(float((strong[:, None] > weak).double().mean()))
    assert result.rows[4]["forced_choice"] is None
    alone = compare(pictures, toy(), "features.5:1", photos=photos)
    assert alone.summary["forced_choice"] is None
    assert "forced_choice: it needs pictures of other targets as controls, and there are none" in alone.notes


def test_the_first_unreadable_files_are_named(photos: Path) -> None:
    for name in ("c", "d", "e"):
        (photos / f"{name}.jpg").write_bytes(b"no photo")
    expected = "photos: 4 files could not be read and were left out: broken.jpg, c.jpg, d.jpg and 1 more"
    for target in ("features.5:1", "features.5"):  # of a whole layer, photos are not measured, but compared
        assert expected in compare(noise(1), toy(), target, photos=photos).notes


def test_few_photos_are_said_to_be_few(photos: Path) -> None:
    def note(count: int) -> bool:
        values = torch.rand(count, 8, generator=torch.Generator().manual_seed(0))
        paths, weights = [str(index) for index in range(count)], FrozenNetwork(toy()).weights_hash()
        record = metrics.PhotoActivations({"features.5": values}, paths, network="", weights_hash=weights, size=8)
        expected = "percentile: among 80 photos, each of which is 1.25 points; give 100 photos or more"
        return expected in compare(noise(1), toy(), "features.5:1", activations=record).notes

    assert (note(80), note(100)) == (True, False)
    layer = compare(noise(1), toy(), "features.5", photos=photos)
    assert not any(text.startswith("percentile") for text in layer.notes)


def test_the_controls_are_the_same_however_many_pictures_are_measured_at_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = ["features.5:1", "features.5:2", "features.5:3", "features.5:1", "features.5:2"]
    together = compare(noise(5), toy(), targets, photos=photos)
    monkeypatch.setattr("featviz_pl.metrics.evaluation.table._BATCH_SIZE", 2)
    split = compare(noise(5), toy(), targets, photos=photos)
    assert [row["forced_choice"] for row in split.rows] == [row["forced_choice"] for row in together.rows]
    assert None not in [row["forced_choice"] for row in together.rows]


def test_photos_that_were_measured_before_give_the_same(photos: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"targets": ["features.5:1", "features.5:2"]}
    fresh = compare(noise(2), toy(), photos=photos, limit=9, **arguments)
    record = metrics.measure_activations(toy(), photos, "features.5", size=(40, 48), limit=9)
    embeddings = metrics.embed_photos(SMALL, photos, limit=9)
    repeated = compare(noise(2), toy(), photos=embeddings, activations=record, **arguments)
    files = {"photos": embeddings.save(tmp_path / "e.pt"), "activations": record.save(tmp_path / "a.pt")}
    from_files = compare(noise(2), toy(), **files, **arguments)
    assert fresh.rows == repeated.rows == from_files.rows
    alone = compare(noise(2), toy(), activations=record, **arguments)
    assert alone.columns == [*ALWAYS[:4], "percentile", *ALWAYS[4:]]
    assert [row["percentile"] for row in alone.rows] == [row["percentile"] for row in fresh.rows]


def test_activations_of_another_network_are_refused(photos: Path) -> None:
    record = metrics.measure_activations(toy(seed=1), photos, "features.5", size=40)
    with pytest.raises(ValueError, match=r"^activations: they were measured with 'ToyNet'"):
        compare(noise(1), toy(), "features.5:1", activations=record)


def test_photos_have_no_percentile_for_a_single_neuron_or_a_whole_layer(photos: Path) -> None:
    result = compare(noise(3), toy(), ["features.5:1@2,2", "features.5", "features.5:1"], photos=photos)
    assert [row["percentile"] is None for row in result.rows] == [True, True, False]
    assert [row["forced_choice"] is None for row in result.rows] == [True, True, False]
    assert all(row["nearest"] is not None for row in result.rows)
    without = compare(noise(1), toy(), "features.5", photos=photos)
    assert without.columns == [*ALWAYS, "nearest"]


def test_of_a_folder_exactly_the_photos_of_the_activations_are_compared(photos: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"targets": ["features.5:1", "features.5:2"]}
    expected = compare(noise(2), toy(), photos=photos, limit=5, **arguments)
    record = metrics.measure_activations(toy(), photos, "features.5", size=(40, 48), limit=5)
    for limit in (None, 5, 100):
        result = compare(noise(2), toy(), photos=photos, activations=record, limit=limit, **arguments)
        assert result.rows == expected.rows
        assert result.settings["photos"] == len(record) < 12
    with pytest.raises(ValueError, match=r"^limit: all 5 photos of the activations are compared"):
        compare(noise(2), toy(), photos=photos, activations=record, limit=2, **arguments)
    (photos / record.paths[1]).unlink()
    with pytest.raises(
        ValueError, match=f"^activations: 1 of their 5 photos are not in .*, such as '{record.paths[1]}'"
    ):
        compare(noise(2), toy(), photos=photos, activations=record, **arguments)


def test_a_single_photo_leaves_no_choice_and_a_note(tmp_path: Path) -> None:
    save_png(noise(1)[0], tmp_path / "one" / "a.png")
    result = compare(noise(2), toy(), ["features.5:1", "features.5:2"], photos=tmp_path / "one")
    assert result.columns == [*ALWAYS[:4], "percentile", *ALWAYS[4:], "nearest"]
    assert "forced_choice was not measured: there is one photo, and a choice needs two or more" in result.notes


def test_a_class_by_name_and_by_number_is_one_target(photos: Path) -> None:
    """Of two classes of one name, the name means the first, as everywhere."""
    network = named(("red", "green", "blue", "red", "c"))
    targets, numbers = ["output:red", "output:0", "output:green", "output:1", "output:3"], [0, 0, 1, 1, 3]
    result, expected = (
        compare(noise(5), network, targets, photos=photos)
        for targets in (targets, [f"output:{index}" for index in numbers])
    )
    assert [row["target"] for row in result.rows] == targets
    vectors = SMALL(noise(5)).double()
    photo_vectors = metrics.embed_photos(SMALL, photos).values.double()
    record = metrics.measure_activations(network, photos, "output", size=(40, 48))
    for row, number, vector in zip(result.rows, numbers, vectors):
        contrast = vectors[[number != index for index in numbers]].mean(0)
        target = f"output:{number}"
        indices = record.strongest(target, 6), record.weakest(target, 6)
        strong, weak = (photo_vectors[part] @ (vector - contrast) for part in indices)
        assert row["forced_choice"] == pytest.approx(float((strong[:, None] > weak).double().mean()))
    agreement = metrics.Agreement(SMALL)
    agreement.update(noise(5), [str(number) for number in numbers])
    assert result.summary["agreement"] == pytest.approx(float(agreement.compute()), rel=1e-5)
    assert result.summary == expected.summary
    alone = compare(noise(2), network, ["output:red", "output:0"], photos=photos)
    assert "forced_choice: it needs pictures of other targets as controls, and there are none" in alone.notes
    assert "agreement" not in alone.summary


# Networks, generators and processes.


def test_the_network_and_the_global_generator_are_left_alone(photos: Path) -> None:
    network = toy().train()
    before, state = FrozenNetwork(network).weights_hash(), torch.random.get_rng_state()
    compare(noise(2), network, "features.5:1", photos=photos)
    assert network.training
    assert FrozenNetwork(network).weights_hash() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_process_of_several_measures_alone(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the others do not take part, a metric that asked them would wait for ever; here it would fail: there is no group."""
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    metric = metrics.ClippedShare()
    metric.update(noise(1))
    with pytest.raises((RuntimeError, ValueError)):
        metric.compute()
    network, targets = named(("red", "green", "blue", "b", "c")), ["output:1", "output:1", "output:2"]
    result = compare(noise(3), network, targets, photos=photos, judge=color_judge())
    assert [name for name, value in result.summary.items() if value is None] == ["score", "held_out"]  # of two classes
    assert {"score", "rank", "forced_choice", "vendi", "agreement"} <= set(result.summary)
