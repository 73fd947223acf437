"""Many views of many pictures: layout, and draws that depend on their key alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sampling import seen
from torch import Tensor

from featviz_pl.transforms import Choice, Compose, Crop, Jitter, Linear, Noise, Pad, Rotate, Scale, Views, WarmUp


def views(count: int = 3, **more: Any) -> Views:
    return Views(Compose([Pad(4, "grey"), Jitter(20), Rotate(90.0), Scale(Choice([0.9, 1.0, 1.1]))]), count, **more)


def rows(parameters: tuple[Tensor, ...], chosen: slice | list[int]) -> list[list[float]]:
    """Return the parameters of some views as plain numbers, one list for each view."""
    return [
        np.concatenate([part[row].flatten().numpy() for part in parameters]).tolist()
        for row in np.arange(len(parameters[0]))[chosen]
    ]


def test_every_picture_has_every_view_with_the_views_fastest() -> None:
    plain = Views(Compose([Jitter(3)]), 4)
    images = torch.arange(5.0)[:, None, None, None].expand(5, 3, 6, 7) / 10
    shown = plain.apply(images, plain.sample(0, 0, list(range(5))), progress=0.0)
    assert shown.shape == (5, 4, 3, 6, 7)
    torch.testing.assert_close(shown, images[:, None].expand(5, 4, 3, 6, 7))


def test_views_are_seen_in_the_order_of_their_draws() -> None:
    plain = Views(Compose([Jitter(3)]), 3)
    images = torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = plain.sample(0, 0, [7, 8])
    shown = plain.apply(images, drawn, progress=0.0)
    for picture in range(2):
        for view in range(3):
            shift = drawn[0][picture * 3 + view].tolist()
            np.testing.assert_allclose(
                shown[picture, view, 0], seen(images[picture, 0].numpy(), [("shift", shift)]), atol=1e-12
            )


def test_a_draw_does_not_depend_on_companions_or_their_order() -> None:
    together = views().sample(4, 9, [11, 22, 33])
    backwards = views().sample(4, 9, [33, 22, 11])
    alone = views().sample(4, 9, [22])
    assert rows(together, slice(3, 6)) == rows(backwards, slice(3, 6)) == rows(alone, slice(None))
    assert rows(together, slice(0, 3)) == rows(backwards, slice(6, 9))


def test_a_share_of_the_views_is_the_same_as_in_the_whole() -> None:
    whole = views(5).sample(0, 3, [1, 2])
    # Two processes that take turns.
    even, odd = views(5).sample(0, 3, [1, 2], range(0, 5, 2)), views(5).sample(0, 3, [1, 2], range(1, 5, 2))
    assert rows(even, slice(None)) == rows(whole, [0, 2, 4, 5, 7, 9])
    assert rows(odd, slice(None)) == rows(whole, [1, 3, 6, 8])
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    shown = views(5).apply(images, whole, 0.0)
    torch.testing.assert_close(views(5).apply(images, odd, 0.0), shown[:, 1::2])
    assert views(5).apply(images, even, 0.0).shape == (2, 3, 3, 6, 6)


def test_more_views_add_to_the_first_ones() -> None:
    assert rows(views(2).sample(0, 0, [5]), slice(None)) == rows(views(6).sample(0, 0, [5]), slice(0, 2))


@pytest.mark.parametrize("other", [(1, 0, 5), (0, 1, 5), (0, 0, 6)])
def test_seed_step_and_picture_each_change_the_draw(other: tuple[int, int, int]) -> None:
    seed, step, key = other
    first = rows(views().sample(0, 0, [5]), slice(None))
    changed = rows(views().sample(seed, step, [key]), slice(None))
    assert all(one != another for one, another in zip(first, changed))
    assert rows(views().sample(0, 0, [5]), slice(None)) == first


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_a_schedule_weakens_the_views_by_the_progress_of_the_run(progress: float, share: float) -> None:
    growing = Views(Compose([Jitter(3)]), 4, Linear(0.0, 1.0))
    image = torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = growing.sample(0, 0, [7])
    shown = growing.apply(image, drawn, progress)
    for view, (down, right) in enumerate(drawn[0].tolist()):
        np.testing.assert_allclose(
            shown[0, view, 0], seen(image[0, 0].numpy(), [("shift", (down * share, right * share))]), atol=1e-12
        )


def test_ranges_move_first_and_are_weakened_then() -> None:
    crop = Crop(center=0.5, side=0.8, end=0.4)
    views = Views(Compose([crop]), 1, WarmUp(1.0))
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shown = views.apply(image, views.sample(0, 0, [7]), 0.5)
    # A side of 0.6 in the middle of the run, at half strength: 0.8.
    np.testing.assert_allclose(shown[0, 0, 0], seen(image[0, 0].numpy(), [("zoom", 1 / 0.8)]), atol=1e-6)


def test_a_share_of_the_views_is_the_same_for_every_kind_of_parameters() -> None:
    mixed = Views(Compose([Crop(end=0.1), Compose([Noise(0.1, end=0.5), Jitter(1)])]), 4)
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    whole = mixed.apply(images, mixed.sample(0, 3, [1, 2]), 0.3)
    odd = mixed.apply(images, mixed.sample(0, 3, [1, 2], range(1, 4, 2)), 0.3)
    torch.testing.assert_close(odd, whole[:, 1::2])


def test_views_are_a_module_without_tensors() -> None:
    shown = views(2, schedule="linear")
    assert isinstance(shown, torch.nn.Module)
    assert not shown.state_dict()
    assert not list(shown.parameters())
    assert not list(shown.buffers())
    holder: Any = torch.nn.Module()
    holder.views = None  # as a run holds them: none, then some, then none again
    holder.views = shown
    assert holder.views is shown
    assert not holder.state_dict()
    holder.views = None
    assert holder.views is None


def test_called_as_a_module_pictures_are_their_own_keys() -> None:
    images = torch.rand(3, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    growing = views(2, schedule="linear")
    expected = growing.apply(images, growing.sample(4, 5, [0, 1, 2]), 0.0)
    assert torch.equal(growing(images, seed=4, step=5), expected)
    assert torch.equal(views(2)(images), views(2).apply(images, views(2).sample(0, 0, [0, 1, 2]), 0.0))


def test_a_transform_without_a_composition_will_do() -> None:
    plain = Views(Jitter(2), 3)
    drawn = plain.sample(0, 0, [1, 2])
    assert drawn[0].shape == (6, 2)
    assert plain.apply(torch.rand(2, 3, 5, 5), drawn, 0.0).shape == (2, 3, 3, 5, 5)


def test_gradients_of_all_views_reach_their_picture_only() -> None:
    images = torch.rand(2, 1, 5, 5, requires_grad=True)
    plain = Views(Compose([Jitter(1)]), 3)
    plain.apply(images, plain.sample(0, 0, [1, 2]), 0.0)[0].sum().backward()
    assert images.grad is not None
    # Whole shifts under a mirrored border: each view's pixels come from the picture's, none is lost or made.
    assert float(images.grad[0].sum()) == pytest.approx(3 * 25, rel=1e-5)
    assert not bool(images.grad[1].any())


def test_views_survive_pickle_and_deepcopy() -> None:
    for copied in (pickle.loads(pickle.dumps(views(schedule="cosine"))), copy.deepcopy(views(schedule="cosine"))):
        assert repr(copied) == repr(views(schedule="cosine"))
        assert repr(copied).endswith("count=3, schedule=Cosine(start=0, end=1))")
        assert rows(copied.sample(0, 0, [1]), slice(None)) == rows(views().sample(0, 0, [1]), slice(None))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="views must be at least 1, got 0"):
        Views(Jitter(1), 0)
    with pytest.raises(TypeError, match="transforms must be a transform, got str"):
        Views("lucid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="schedule: unknown schedule 'quadratic'"):
        Views(Jitter(1), schedule="quadratic")
