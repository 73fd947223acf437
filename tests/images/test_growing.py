"""Pictures that grow: when stages begin, what they begin from, and that a run resumes inside one exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from runs import fit
from torch import Tensor
from torch.nn import functional
from toys import toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import AlphaImage, FourierImage, GrowingImage, PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel
from featviz_pl.training import FeatureVisualization


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grown(count: int = 1, **arguments: Any) -> GrowingImage:
    image = GrowingImage(**{"size": 12, "sizes": [3, 6, 12], "arguments": {"deviation": 0.5}, **arguments})
    image.initialize(count, generator())
    return image


def stages(image: GrowingImage, steps: int) -> list[int]:
    """Return the stage of every step of a run."""
    seen = []
    for step in range(steps):
        image.advance(step, steps)
        seen.append(int(image.stage))
    return seen


@pytest.mark.parametrize(
    ("starts", "steps", "expected"),
    [
        (None, 9, [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (None, 7, [0, 0, 0, 1, 1, 2, 2]),  # a third of 7 is 2.33: the first step after it is 3
        ([0, 0.25, 0.5], 8, [0, 0, 1, 1, 2, 2, 2, 2]),
        ([0, 0.1, 0.9], 10, [0, 1, 1, 1, 1, 1, 1, 1, 1, 2]),
        (None, 1, [0]),
        (None, 2, [0, 1]),
    ],
)
def test_stages_begin_where_they_are_asked_to(starts: list[float] | None, steps: int, expected: list[int]) -> None:
    assert stages(grown(starts=starts), steps) == expected


def test_the_published_stages_of_inverting_clip() -> None:
    # 64 pixels, doubled at step 900 and 1,800 of 3,400.
    image = GrowingImage(224, 1, starts=[0, 900 / 3400, 1800 / 3400])
    assert [part.size for part in image.parts] == [(64, 64), (128, 128), (224, 224)]
    image.initialize(1, generator())
    for step, size in ((0, 64), (899, 64), (900, 128), (1799, 128), (1800, 224), (3399, 224)):
        image.advance(step, 3400)
        assert image.current.size == (size, size)


@pytest.mark.parametrize("size", [(12, 18), (7, 5), (9, 14)])
def test_stages_keep_the_shape_of_the_picture(size: tuple[int, int]) -> None:
    image = GrowingImage(size, 1)
    for part in image.parts:
        assert part.size[0] / part.size[1] == pytest.approx(size[0] / size[1], rel=0.35)
    assert image.parts[-1].size == size
    assert image().shape == (1, 3, *size)


def test_the_present_stage_is_shown_at_full_size() -> None:
    image = grown(2)
    small = image.parts[0]().detach()
    expected = functional.interpolate(small, (12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(image().detach(), expected)


def test_a_stage_begins_as_the_stage_before_enlarged() -> None:
    image = grown(2)
    small = image.current().detach()
    image.advance(4, 12)
    expected = functional.interpolate(small, (6, 6), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(image.current().detach().numpy(), expected.numpy(), atol=1e-3)


@pytest.mark.parametrize("kind", [FourierImage, PixelImage])
def test_the_picture_continues_across_a_stage(kind: type[FourierImage] | type[PixelImage]) -> None:
    image = grown(2, size=32, sizes=[8, 16, 32], image=kind)
    before = image().detach()
    image.advance(6, 12)
    after = image().detach()
    low = torch.fft.rfft2(before)[..., :3, :3], torch.fft.rfft2(after)[..., :3, :3]
    assert float((low[0] - low[1]).abs().max() / low[0].abs().max()) < 0.05
    assert float((before - after).abs().mean()) < 0.02


@pytest.mark.parametrize(("zoom", "window"), [(0.0, (4, 4)), (0.5, (8, 8)), (1.0, (12, 12))])
def test_the_picture_before_is_enlarged_by_a_share_of_the_growth_and_centred(
    zoom: float, window: tuple[int, int]
) -> None:
    image = grown(size=12, sizes=[4, 12], zoom=zoom)
    small, rim = image.current().detach(), image.parts[1]().detach().clone()
    image.advance(6, 12)
    shown, edge = image.current().detach(), (12 - window[0]) // 2
    inside = (..., slice(edge, 12 - edge), slice(edge, 12 - edge))
    expected = rim.clone()
    expected[inside] = functional.interpolate(small, window, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(shown.numpy(), expected.numpy(), atol=1e-3)
    if zoom == 0.0:
        np.testing.assert_allclose(shown[inside].numpy(), small.numpy(), atol=1e-3)


def test_hearing_of_a_step_twice_changes_nothing() -> None:
    image = grown()
    image.advance(5, 12)
    with torch.no_grad():
        for weight in image.parameters():
            weight.add_(0.25)
    before = image().detach().clone()
    for step in (5, 5, 6, 0):
        image.advance(step, 12)
        assert torch.equal(image(), before)


def test_a_second_run_goes_on_in_the_last_stage_and_a_new_start_goes_back() -> None:
    image = grown()
    assert stages(image, 6) == [0, 0, 1, 1, 2, 2]
    assert stages(image, 6) == [2] * 6
    given = torch.rand(3, 12, 12, generator=generator(3))
    image.start_from(given)
    assert int(image.stage) == 0
    small = functional.interpolate(given[None], (3, 3), mode="bilinear", align_corners=False, antialias=True)
    np.testing.assert_allclose(image.current().detach().numpy(), small.numpy(), atol=1e-3)
    assert stages(image, 6) == [0, 0, 1, 1, 2, 2]


def test_stages_that_are_passed_over_are_left_out() -> None:
    image = grown()
    middle = image.parts[1]().detach().clone()
    image.advance(11, 12)
    assert int(image.stage) == 2
    assert torch.equal(image.parts[1](), middle)


def test_only_the_present_stage_has_a_gradient_and_a_state_of_the_optimizer() -> None:
    made: list[torch.optim.Adam] = []

    def adam(parameters: Any) -> torch.optim.Adam:
        made.append(torch.optim.Adam(parameters, lr=0.05))
        return made[0]

    image = grown(starts=[0, 0.25, 0.75])
    problem = Ascent(image, FrozenNetwork(toy()), Channel("features.5", 2))
    weights = list(image.parameters())
    taken: list[list[int]] = []

    def look(step: int, result: object) -> None:
        assert [weight.grad is not None for weight in weights] == [stage == int(image.stage) for stage in range(3)]
        taken.append([int(made[0].state[weight]["step"]) if weight in made[0].state else 0 for weight in weights])

    problem.prepare()
    before = problem.scores()
    after = ascend(problem, steps=8, optimizer=adam, on_step=look)
    assert float(after) > float(before)
    assert taken[1] == [2, 0, 0]
    assert taken[2] == [2, 1, 0], "Adam begins afresh"
    assert taken[7] == [2, 4, 2]
    assert problem.image.has_idle_parameters


def test_a_run_resumes_exactly_in_the_middle_of_a_stage() -> None:
    def steps(image: GrowingImage, adam: torch.optim.Adam, first: int, last: int) -> None:
        problem = Ascent(image, FrozenNetwork(toy()), Channel("features.5", [2, 3]))
        problem.prepare()
        for step in range(first, last):
            adam.zero_grad()
            problem.step(step, 12).loss.backward()
            adam.step()

    whole = grown(2)
    adam = torch.optim.Adam(whole.parameters(), lr=0.05)
    steps(whole, adam, 0, 6)
    assert int(whole.stage) == 1
    saved = copy.deepcopy((whole.state_dict(), adam.state_dict()))
    steps(whole, adam, 6, 12)

    fresh = GrowingImage(12, sizes=[3, 6, 12], arguments={"deviation": 0.5})
    fresh.initialize(2, generator(8))
    fresh.load_state_dict(saved[0])
    again = torch.optim.Adam(fresh.parameters(), lr=0.05)
    again.load_state_dict(saved[1])
    assert fresh.current.size == (6, 6)
    steps(fresh, again, 6, 12)
    assert int(fresh.stage) == 2
    assert torch.equal(fresh(), whole())


def test_a_checkpoint_of_a_trainer_resumes_exactly(tmp_path: Path) -> None:
    def model() -> FeatureVisualization:
        return FeatureVisualization(
            toy(), Channel("features.5", [2, 3]), image=GrowingImage(12, sizes=[3, 6, 12]), steps=9
        )

    def pictures(made: FeatureVisualization) -> Tensor:
        return made.images.clone()

    whole = model()
    fit(whole, max_steps=9)
    half = model()
    half.steps = 9

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    fit(half, max_steps=9, callbacks=[Stop()])
    resumed = model()
    fit(resumed, max_steps=9, ckpt_path=str(tmp_path / "half.ckpt"))
    assert torch.equal(pictures(resumed), pictures(whole))
    assert torch.equal(pictures(half), pictures(whole))
    held = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    assert int(held["image.stage"]) == 1


def test_stages_can_be_transparent() -> None:
    image = GrowingImage(12, 1, sizes=[6, 12], image=AlphaImage, arguments={"opacity": 0.25})
    image.initialize(1, generator())
    assert (image.channels, image.alpha) == (4, True)
    assert float(image()[:, 3].detach().mean()) == pytest.approx(0.25, rel=0.05)
    assert "channels=3" in repr(image)
