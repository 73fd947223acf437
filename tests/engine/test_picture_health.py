"""Each picture of a batch is watched for itself."""

from __future__ import annotations

import math

import pytest
import torch
from sweep_networks import partly_dead
from toys import adam

from featviz_pl.engine import Ascent, ascend
from featviz_pl.engine.picture_health import DEAD_AFTER, PictureHealth
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel


def test_what_is_not_finite_and_what_no_gradient_reaches_have_failed() -> None:
    watch = PictureHealth(3, 100, 0, "cpu")
    for step in range(DEAD_AFTER):
        assert watch.failures().keys() == ({1} if step > 2 else set())
        scores = torch.tensor([1.0, math.inf if step == 2 else 1.0, 1.0])
        (gradient,) = watch.mask_failed(scores, [torch.tensor([[1.0], [1.0], [0.0]])])
        assert gradient is not None
        assert gradient.flatten().tolist() == [1.0, 0.0 if step >= 2 else 1.0, 0.0]
    failures = watch.failures()
    assert failures[1] == "the score or the gradient of step 2 is not finite"
    assert failures[2].startswith("no gradient reaches the picture")
    assert failures.keys() == {1, 2}


@pytest.mark.parametrize(("units", "steps"), [([1, 1], DEAD_AFTER), ([1, 2], 100)])
def test_the_bare_loop_ends_when_all_its_pictures_have_failed(units: list[int], steps: int) -> None:
    problem, failures = (
        Ascent(PixelImage(4, color="none"), FrozenNetwork(partly_dead()), Channel("1", units)),
        dict[int, str](),
    )
    taken: list[int] = []
    ascend(problem, 100, adam(), failures=failures, on_step=lambda index, _: taken.append(index))
    assert len(taken) == steps
    assert set(failures) == {index for index, unit in enumerate(units) if unit == 1}
