"""Photos in the table of an evaluation: what pictures are compared with, and who is left alone meanwhile."""

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
from featviz_pl.metrics import evaluate
from featviz_pl.networks import FrozenNetwork


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


# Photos.


def test_photos_are_measured_at_the_size_of_the_pictures(photos: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        noise(2),
        toy(),
        ["features.5:1", "features.0:2"],
        photos=photos,
        views=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.columns == [*ALWAYS[:4], "percentile", *ALWAYS[4:], "nearest", "forced_choice"]
    held = metrics.measure_activations(toy(), photos, ["features.5", "features.0"], size=(40, 48))
    for row, layer, unit in zip(found.rows, ("features.5", "features.0"), (1, 2)):
        below = (held.values[layer][:, unit] < row["score"]).double().mean()
        assert row["percentile"] == pytest.approx(100 * float(below))
    assert (found.settings["photos"], found.settings["photo_size"]) == (12, [40, 48])
    assert "photos: 1 files could not be read and were left out: broken.jpg" in found.notes
    assert any(note.endswith("are smaller than 40 x 48 and were enlarged") for note in found.notes)
    assert seen[-1][0] == seen[-1][1] == 26
    assert seen == sorted(seen)


def test_the_controls_of_a_forced_choice_are_the_pictures_of_other_targets(photos: Path) -> None:
    pictures, larger = noise(4), noise(1, 64, 64, seed=7)
    targets = ["features.5:1", "features.5:2", "features.5:2", "features.5:1", "features.5:3@2,2"]
    found = evaluate([*pictures[:2], larger[0], *pictures[2:]], toy(), targets, photos=photos, views=1)
    held, embedding = metrics.measure_activations(toy(), photos, "features.5", size=224), metrics.Embedding()
    shown = metrics.embed_photos(embedding, photos).values.double()
    vectors = torch.cat([embedding(pictures[:2]), embedding(larger), embedding(pictures[2:])]).double()
    for row, vector in zip(found.rows[:4], vectors):
        others = vectors[[target != row["target"] for target in targets]].mean(0)
        strong, weak = (
            shown[one] @ (vector - others) for one in (held.strongest(row["target"], 6), held.weakest(row["target"], 6))
        )
        assert row["forced_choice"] == pytest.approx(float((strong[:, None] > weak).double().mean()))
    assert found.rows[4]["forced_choice"] is None
    alone = evaluate(pictures, toy(), "features.5:1", photos=photos, views=1)
    assert alone.summary["forced_choice"] is None
    assert "forced_choice: it needs pictures of other targets as controls, and there are none" in alone.notes


def test_the_first_unreadable_files_are_named(photos: Path) -> None:
    for name in ("c", "d", "e"):
        (photos / f"{name}.jpg").write_bytes(b"no photo")
    expected = "photos: 4 files could not be read and were left out: broken.jpg, c.jpg, d.jpg and 1 more"
    for target in ("features.5:1", "features.5"):  # of a whole layer, photos are not measured, but compared
        assert expected in evaluate(noise(1), toy(), target, photos=photos, views=1).notes


def test_few_photos_are_said_to_be_few(photos: Path) -> None:
    def note(count: int) -> bool:
        values = torch.rand(count, 8, generator=torch.Generator().manual_seed(0))
        held = metrics.PhotoActivations(
            {"features.5": values},
            list(map(str, range(count))),
            network="",
            weights_hash=FrozenNetwork(toy()).weights_hash(),
            size=8,
        )
        said = "percentile: among 80 photos, each of which is 1.25 points; give 100 photos or more"
        return said in evaluate(noise(1), toy(), "features.5:1", activations=held, views=1).notes

    assert (note(80), note(100)) == (True, False)
    assert not any(
        one.startswith("percentile") for one in evaluate(noise(1), toy(), "features.5", photos=photos, views=1).notes
    )


def test_the_controls_are_the_same_however_many_pictures_are_measured_at_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = ["features.5:1", "features.5:2", "features.5:3", "features.5:1", "features.5:2"]
    together = evaluate(noise(5), toy(), targets, photos=photos, views=1)
    monkeypatch.setattr("featviz_pl.metrics.evaluation.table._BATCH_SIZE", 2)
    apart = evaluate(noise(5), toy(), targets, photos=photos, views=1)
    assert [row["forced_choice"] for row in apart.rows] == [row["forced_choice"] for row in together.rows]
    assert None not in [row["forced_choice"] for row in together.rows]


def test_photos_that_were_measured_before_give_the_same(photos: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"targets": ["features.5:1", "features.5:2"], "views": 1}
    fresh = evaluate(noise(2), toy(), photos=photos, limit=9, **arguments)
    held = metrics.measure_activations(toy(), photos, "features.5", size=(40, 48), limit=9)
    embeddings = metrics.embed_photos(metrics.Embedding(), photos, limit=9)
    again = evaluate(noise(2), toy(), photos=embeddings, activations=held, **arguments)
    from_files = evaluate(
        noise(2),
        toy(),
        photos=embeddings.save(tmp_path / "e.pt"),
        activations=held.save(tmp_path / "a.pt"),
        **arguments,
    )
    assert fresh.rows == again.rows == from_files.rows
    alone = evaluate(noise(2), toy(), activations=held, **arguments)
    assert alone.columns == [*ALWAYS[:4], "percentile", *ALWAYS[4:]]
    assert [row["percentile"] for row in alone.rows] == [row["percentile"] for row in fresh.rows]


def test_activations_of_another_network_are_refused(photos: Path) -> None:
    held = metrics.measure_activations(toy(seed=1), photos, "features.5", size=40)
    with pytest.raises(ValueError, match=r"^activations: they were measured with 'ToyNet'"):
        evaluate(noise(1), toy(), "features.5:1", activations=held, views=1)


def test_photos_have_no_percentile_for_a_single_neuron_or_a_whole_layer(photos: Path) -> None:
    found = evaluate(noise(3), toy(), ["features.5:1@2,2", "features.5", "features.5:1"], photos=photos, views=1)
    assert [row["percentile"] is None for row in found.rows] == [True, True, False]
    assert [row["forced_choice"] is None for row in found.rows] == [True, True, False]
    assert all(row["nearest"] is not None for row in found.rows)
    without = evaluate(noise(1), toy(), "features.5", photos=photos, views=1)
    assert without.columns == [*ALWAYS, "nearest"]


def test_of_a_folder_exactly_the_photos_of_the_activations_are_compared(photos: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"targets": ["features.5:1", "features.5:2"], "views": 1}
    expected = evaluate(noise(2), toy(), photos=photos, limit=5, **arguments)
    held = metrics.measure_activations(toy(), photos, "features.5", size=(40, 48), limit=5)
    for limit in (None, 5, 100):
        found = evaluate(noise(2), toy(), photos=photos, activations=held, limit=limit, **arguments)
        assert found.rows == expected.rows
        assert found.settings["photos"] == len(held) < 12
    with pytest.raises(
        ValueError,
        match=f"^limit: all {len(held)} photos of the activations are compared",
    ):
        evaluate(noise(2), toy(), photos=photos, activations=held, limit=2, **arguments)
    (photos / held.paths[1]).unlink()
    with pytest.raises(
        ValueError,
        match=rf"^activations: 1 of their {len(held)} photos are not in '.*photos', such as '{held.paths[1]}'",
    ):
        evaluate(noise(2), toy(), photos=photos, activations=held, **arguments)


def test_a_single_photo_leaves_no_choice_and_a_note(tmp_path: Path) -> None:
    save_png(noise(1)[0], tmp_path / "one" / "a.png")
    found = evaluate(noise(2), toy(), ["features.5:1", "features.5:2"], photos=tmp_path / "one", views=1)
    assert found.columns == [*ALWAYS[:4], "percentile", *ALWAYS[4:], "nearest"]
    assert "forced_choice was not measured: there is one photo, and a choice needs two or more" in found.notes


def test_a_class_by_name_and_by_number_is_one_target(photos: Path) -> None:
    """Of two classes of one name, the name means the first, as everywhere."""
    network = named(("red", "green", "blue", "red", "c"))
    both, numbers = ["output:red", "output:0", "output:green", "output:1", "output:3"], [0, 0, 1, 1, 3]
    found, expected = (
        evaluate(noise(5), network, targets, photos=photos, views=1)
        for targets in (both, [f"output:{index}" for index in numbers])
    )
    assert [row["target"] for row in found.rows] == both
    vectors, shown = (
        metrics.Embedding()(noise(5)).double(),
        metrics.embed_photos(metrics.Embedding(), photos).values.double(),
    )
    held = metrics.measure_activations(network, photos, "output", size=(40, 48))
    for row, number, vector in zip(found.rows, numbers, vectors):
        others = vectors[[number != other for other in numbers]].mean(0)
        asked = f"output:{number}"
        strong, weak = (shown[one] @ (vector - others) for one in (held.strongest(asked, 6), held.weakest(asked, 6)))
        assert row["forced_choice"] == pytest.approx(float((strong[:, None] > weak).double().mean()))
    agreement = metrics.Agreement()
    agreement.update(noise(5), [str(number) for number in numbers])
    assert found.summary["agreement"] == pytest.approx(float(agreement.compute()), rel=1e-5)
    assert found.summary == expected.summary
    alone = evaluate(noise(2), network, ["output:red", "output:0"], photos=photos, views=1)
    assert "forced_choice: it needs pictures of other targets as controls, and there are none" in alone.notes
    assert "agreement" not in alone.summary


# Guests, generators and processes.


def test_the_network_and_the_global_generator_are_left_alone(photos: Path) -> None:
    network = toy().train()
    before, state = FrozenNetwork(network).weights_hash(), torch.random.get_rng_state()
    evaluate(noise(2), network, "features.5:1", photos=photos, views=2)
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
    found = evaluate(noise(3), network, targets, photos=photos, judge=color_judge(), views=1)
    assert [name for name, value in found.summary.items() if value is None] == ["score", "held_out"]  # of two classes
    assert {"score", "rank", "forced_choice", "vendi", "agreement"} <= set(found.summary)
