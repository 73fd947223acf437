"""The slots of a sweep's batch: pictures that are finished early make room for others, and nobody's picture changes for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from sweep_networks import partly_dead
from torch import Tensor, nn
from toys import QUIET, toy

from featviz_pl.callbacks import FeatureWriter
from featviz_pl.engine import Ascent, ascend
from featviz_pl.engine import picture_health as _watch
from featviz_pl.engine.picture_health import DEAD_AFTER
from featviz_pl.images import FourierImage, GrowingImage, PixelImage
from featviz_pl.io import read_provenance
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel
from featviz_pl.presets import lucid
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.sweep import slots as _sweep_slots
from featviz_pl.sweep.slots import Rendered
from featviz_pl.sweep.targets import TargetBatches
from featviz_pl.transforms import Compose

STEPS, SHORT = 38, 4  # stretches of 4 steps instead of 32, so that little is long enough
QUICK: dict[str, Any] = {"preset": "lucid", "size": 8, "lr": 0.3, "steps": STEPS}
CONVERGING: dict[str, Any] = {**QUICK, "tolerance": 0.1}


@pytest.fixture(scope="module", autouse=True)
def short_stretches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for room in (_watch, _sweep_slots):
            patch.setattr(room, "STRETCH", SHORT)
        yield


def predict(sweep: FeatureSweep, targets: Any, *callbacks: Callback) -> list[Rendered]:
    found: list[Rendered] = Trainer(**{**QUIET, "callbacks": list(callbacks)}).predict(sweep, targets)  # type: ignore[assignment]
    return found


def shown(batches: Sequence[Rendered]) -> dict[str, Tensor]:
    return {name: image for batch in batches for name, image in zip(batch.targets, batch.images)}


def taken(batches: Sequence[Rendered]) -> dict[str, int]:
    return {origin["target"]: origin["steps_taken"] for batch in batches for origin in batch.provenance}


def steps_of(sweep: FeatureSweep, targets: FeatureTargets) -> tuple[list[Rendered], int]:
    """Sweep, and count the steps of the batch."""
    counted: list[int] = []
    sweep.on_render_step = counted.append
    return predict(sweep, targets), len(counted)


@pytest.fixture(scope="module")
def converged() -> tuple[list[Rendered], int]:
    """Let eight units share three slots."""
    return steps_of(FeatureSweep(toy(), **CONVERGING), FeatureTargets("features.5", 3))


def test_units_are_finished_at_different_steps_and_the_batch_takes_fewer(converged: tuple[list[Rendered], int]) -> None:
    batches, steps = converged
    own = taken(batches)
    assert sorted(own) == [f"features.5:{unit}" for unit in range(8)]
    assert len(set(own.values())) > 2
    assert all(count % SHORT == 0 or count == STEPS for count in own.values())
    # Eight units one after another in three slots: as long as the busiest slot, where each is given to the next that
    # waits.
    busy = [0, 0, 0]
    for unit in range(8):
        slot = busy.index(min(busy))
        busy[slot] += own[f"features.5:{unit}"]
    assert steps == max(busy) < 3 * STEPS


def test_a_picture_that_took_another_ones_place_is_the_one_of_an_ordinary_batch(
    converged: tuple[list[Rendered], int],
) -> None:
    batches, _ = converged
    own, pictures = taken(batches), shown(batches)
    for steps in set(own.values()):
        units = ",".join(target.partition(":")[2] for target, count in own.items() if count == steps)
        ordinary = predict(FeatureSweep(toy(), **{**QUICK, "steps": steps}), FeatureTargets(f"features.5:{units}", 3))
        for batch in ordinary:
            for target, image, score in zip(batch.targets, batch.images, batch.scores):
                assert torch.equal(image, pictures[target]), target
                (found,) = [one.scores[one.targets.index(target)] for one in batches if target in one.targets]
                assert found == score


def test_each_step_gives_what_is_finished_once_all_its_units_have_a_place(
    converged: tuple[list[Rendered], int],
) -> None:
    first, second, last = converged[0]
    assert first.targets == []
    assert len(second.targets) >= 3
    assert len(last.targets) == 8 - len(second.targets)
    assert last.images.shape == (len(last.targets), 3, 8, 8)


def test_other_companions_and_other_shares_give_the_same_pictures(converged: tuple[list[Rendered], int]) -> None:
    expected, own = shown(converged[0]), taken(converged[0])
    targets = FeatureTargets("features.5", 3)
    targets.bind(FeatureSweep(toy(), **CONVERGING), 2)
    for rank in (0, 1):
        share = predict(FeatureSweep(toy(), **CONVERGING), TargetBatches(targets.batches(rank, 2)))
        assert taken(share).items() <= own.items()
        assert all(torch.equal(image, expected[target]) for target, image in shown(share).items())


class Die(Callback):
    """Stop a sweep after some steps of prediction."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_predict_batch_end(self, trainer: Trainer, *more: Any) -> None:
        self.after -= 1
        if not self.after:
            raise RuntimeError("over")


def test_a_sweep_with_a_tolerance_that_is_cut_short_goes_on_to_the_same_files(tmp_path: Path) -> None:
    def run(folder: Path, *callbacks: Callback) -> None:
        sweep = FeatureSweep(toy(), **CONVERGING)
        trainer = Trainer(**{**QUIET, "callbacks": [FeatureWriter(folder), *callbacks]})
        trainer.predict(sweep, FeatureTargets("features.5", 3), return_predictions=False)

    def files(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*.*")
            if path.is_file() and path.name != ".lock"
        }

    run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="over"):
        run(tmp_path / "cut", Die(2))
    assert 3 <= len(list((tmp_path / "cut").glob("*/*.png"))) < 8
    run(tmp_path / "cut")
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    origin = read_provenance(tmp_path / "cut" / "features.5" / "3.png")
    assert (origin["tolerance"], origin["steps"], origin["steps_taken"] in range(SHORT, STEPS + 1)) == (
        0.1,
        STEPS,
        True,
    )
    (tmp_path / "cut" / "manifest.jsonl").unlink()
    run(tmp_path / "cut")  # what each picture took is no setting, also where the manifest is rebuilt
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_another_tolerance_is_refused(tmp_path: Path) -> None:
    def run(**arguments: Any) -> None:
        sweep = FeatureSweep(toy(), **{**QUICK, "steps": 2, **arguments})
        Trainer(**{**QUIET, "callbacks": [FeatureWriter(tmp_path)]}).predict(sweep, FeatureTargets("features.5:0", 1))

    run(tolerance=0.5)
    with pytest.raises(
        ValueError, match=r"^tolerance: the pictures in .* were made with 0\.5, and this asks for 0\.25"
    ):
        run(tolerance=0.25)
    with pytest.raises(ValueError, match=r"^tolerance: the pictures in .* were made with 0\.5, and this asks for None"):
        run()


@pytest.mark.parametrize(
    "arguments",
    [
        {"preset": "featviz"},
        {"preset": "vit"},
        {"preset": "plug_in_inversion"},
        {"preset": "maco"},
        {"preset": replace(lucid(), scheduler=torch.optim.lr_scheduler.CosineAnnealingLR)},
        {"preset": "lucid", "image": GrowingImage(16)},
    ],
    ids=str,
)
def test_a_tolerance_is_refused_where_the_end_of_the_run_is_part_of_the_recipe(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tolerance: the recipe '\w+' changes as the run goes on"):
        FeatureSweep(toy(), tolerance=0.02, **arguments)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, "much"])
def test_impossible_tolerances_are_refused(tolerance: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="tolerance must be"):
        FeatureSweep(toy(), "lucid", tolerance=tolerance)


# What fails.


def dead_beside_live(**arguments: Any) -> FeatureSweep:
    return FeatureSweep(
        partly_dead(), replace(lucid(), transforms=Compose([])), PixelImage(6, color="none"), **arguments
    )


def test_a_batch_whose_units_are_all_dead_ends_early_and_one_with_a_live_unit_does_not() -> None:
    sweep = dead_beside_live(steps=80)
    (alone,), steps = steps_of(sweep, FeatureTargets("1:1", 2))
    assert steps == DEAD_AFTER
    (beside,), steps = steps_of(sweep, FeatureTargets("1:0-1", 2))
    assert steps == 80
    assert alone.failures == beside.failures[1:] == ["no gradient reaches the picture: nothing turns the unit on"]
    assert beside.targets == ["1:0", "1:1"]
    assert beside.failures[0] is None


def test_the_slot_of_a_dead_unit_is_given_to_the_next() -> None:
    sweep = dead_beside_live(steps=80, tolerance=0.0)
    batches, steps = steps_of(sweep, FeatureTargets("1:1-2", 1))
    assert [failure is None for batch in batches for failure in batch.failures] == [False, True]
    assert taken(batches)["1:1"] == DEAD_AFTER
    assert steps == DEAD_AFTER + taken(batches)["1:2"]


def test_the_bare_loop_ends_when_all_its_pictures_have_failed() -> None:
    seen: list[int] = []
    for units, steps in (([1, 1], DEAD_AFTER), ([1, 2], 100)):
        problem, failures = (
            Ascent(PixelImage(4, color="none"), FrozenNetwork(partly_dead()), Channel("1", units)),
            dict[int, str](),
        )
        seen.clear()
        ascend(problem, 100, failures=failures, on_step=lambda index, _: seen.append(index))
        assert len(seen) == steps
        assert set(failures) == {place for place, unit in enumerate(units) if unit == 1}


# The problem whose pictures begin at different times.


def test_a_step_of_each_picture_is_that_of_a_run_at_this_step() -> None:
    network, units = FrozenNetwork(toy()), [1, 4, 6]
    recipe = FeatureSweep(toy(), "article", size=10)
    together, ages = recipe.problem("features.5", units, "cpu"), [0, 20, 40]
    drawn = together.look(ages, 100)
    for place, (unit, age) in enumerate(zip(units, ages)):
        alone = Ascent(FourierImage(10), network, Channel("features.5", unit), views=recipe.views)
        alone.initialize()
        alone.prepare()
        pictures, views, _ = alone.look(age, 100)
        torch.testing.assert_close(drawn[0][place], pictures[0])
        torch.testing.assert_close(drawn[1][place], views[0])


def test_only_pictures_in_their_first_steps_get_the_redirected_gradient() -> None:
    convolution = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        convolution.load_state_dict({"weight": torch.ones(2, 3, 1, 1), "bias": torch.tensor([-10.0, -10.0])})
    problem = Ascent(
        PixelImage(4, color="none"), FrozenNetwork(nn.Sequential(convolution, nn.ReLU())), Channel("1", [0, 1])
    )
    problem.initialize()
    problem.prepare()
    for ages, moved in (
        ([3, 30], [True, False]),
        ([30, 3], [False, True]),
        ([15, 16], [True, False]),
        ([40, 41], [False, False]),
    ):
        (gradient,) = torch.autograd.grad(problem.step(ages, 100).loss, list(problem.image.parameters()))
        assert [bool(own.any()) for own in gradient] == moved


def test_pictures_begin_anew_as_in_a_problem_of_their_own_and_leave_the_others_alone() -> None:
    sweep = FeatureSweep(toy(), "lucid", size=10, seed=4)
    problem, other = (sweep.problem("features.5", units, "cpu") for units in ([1, 2, 3], [1, 7, 3]))
    before = problem.image().detach().clone()
    problem.begin_anew([1], Channel("features.5", [1, 7, 3]), FourierImage(10))
    after = problem.image().detach()
    assert torch.equal(after, other.image().detach())
    assert torch.equal(after[::2], before[::2])
    assert problem.targets == other.targets
    assert torch.equal(problem.step(9, 20).scores, other.step(9, 20).scores)
    assert torch.equal(problem.scores(), other.scores())


def test_pictures_cannot_begin_anew_with_another_layer() -> None:
    problem = FeatureSweep(toy(), "lucid", size=10).problem("features.5", [1, 2], "cpu")
    with pytest.raises(ValueError, match=r"objective: Channel\('features.3', .* reads other layers than"):
        problem.begin_anew([0], Channel("features.3", [1, 2]), FourierImage(10))
