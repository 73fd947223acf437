"""The published ranges, number by number, and what they do to pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from featviz_pl.transforms import PRESETS, Compose, Jitter, Pad, Rotate, Scale, article, lucid, view_preset

# lucid/optvis/transform.py: pad(12, mode="constant", constant_value=.5), jitter(8), random_scale([1 + (i - 5) / 50.]),
# random_rotate(list(range(-10, 11)) + 5 * [0]), jitter(4). A jitter of d is a random crop that leaves d + 1 places on each axis.
LUCID_SCALES = [0.90, 0.92, 0.94, 0.96, 0.98, 1.00, 1.02, 1.04, 1.06, 1.08, 1.10]
LUCID_ANGLES = [*range(-10, 11), 0, 0, 0, 0, 0]
ARTICLE_ANGLES = [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_lucid_s_standard_transforms_in_order() -> None:
    pad, wide, scale, rotate, narrow = lucid().transforms
    assert isinstance(pad, Pad)
    assert (pad.pixels, pad.mode, pad.value) == (12, "constant", 0.5)
    assert isinstance(wide, Jitter)
    assert isinstance(narrow, Jitter)
    assert (2 * wide.pixels + 1, 2 * narrow.pixels + 1) == (8 + 1, 4 + 1)
    assert isinstance(scale, Scale)
    assert sorted(scale.factors) == LUCID_SCALES
    assert isinstance(rotate, Rotate)
    assert Counter(rotate.degrees) == Counter(float(angle) for angle in LUCID_ANGLES)


def test_the_article_s_transforms_in_order() -> None:
    transforms, views = view_preset("article")
    assert views == 4
    assert [type(part).__name__ for part in transforms.transforms] == ["Pad", "Jitter", "Rotate", "Scale"]
    pad, jitter, rotate, scale = transforms.transforms
    assert isinstance(pad, Pad)
    assert pad.mode == "reflect"
    assert isinstance(jitter, Jitter)
    assert jitter.pixels == 8
    assert pad.pixels == 8 + 1  # ReflectionPad2d(tau + 1)
    assert isinstance(rotate, Rotate)
    assert sorted(rotate.degrees) == ARTICLE_ANGLES
    assert isinstance(scale, Scale)
    assert sorted(scale.factors) == [0.95, 0.975, 1.0, 1.025, 1.05]


def test_the_presets_by_name() -> None:
    assert set(PRESETS) == {"lucid", "article"}
    transforms, views = view_preset("lucid")
    assert views == 1
    assert repr(transforms) == repr(lucid())
    assert lucid() is not lucid(), "nobody can change the preset of another"


def test_an_unknown_preset_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match="transforms: unknown preset 'artcle'; did you mean 'article'"):
        view_preset("artcle")


@pytest.mark.parametrize("make", [lucid, article])
def test_the_ranges_move_nothing_on_average(make: Callable[[], Compose]) -> None:
    for part in make().transforms:
        if isinstance(part, Rotate):
            assert Counter(part.degrees) == Counter(-angle for angle in part.degrees)
        if isinstance(part, Scale):
            assert sum(part.factors) / len(part.factors) == pytest.approx(1.0)


def test_no_view_of_the_article_has_a_bar() -> None:
    for value in (0.0, 1.0):
        image = torch.full((64, 3, 20, 24), value)
        torch.testing.assert_close(article()(image, generator()), image)


def test_lucid_s_border_is_grey_not_black() -> None:
    white, black = torch.ones(64, 3, 20, 24), torch.zeros(64, 3, 20, 24)
    light, dark = lucid()(white, generator()), lucid()(black, generator())
    assert float(light.min()) == pytest.approx(0.5, abs=1e-5)
    assert float(dark.max()) == pytest.approx(0.5, abs=1e-5)
    torch.testing.assert_close(light - 0.5, 0.5 - dark)


@pytest.mark.parametrize("make", [lucid, article])
def test_the_average_view_of_a_spot_is_centred_on_it(make: Callable[[], Compose]) -> None:
    # A broad spot in the middle; 400 draws of shifts with a deviation of at most 5 pixels: the mean deviates by 0.25.
    rows, columns = torch.meshgrid(torch.arange(61.0), torch.arange(61.0), indexing="ij")
    spot = torch.exp(-((rows - 30) ** 2 + (columns - 30) ** 2) / 18)
    average = make()(spot.expand(400, 1, -1, -1), generator()).mean(0)[0]
    if make is lucid:
        average = average - average[0, 0]  # the grey that enters at the border
        average = average[8:-8, 8:-8].clamp_min(0)
        rows, columns = rows[8:-8, 8:-8], columns[8:-8, 8:-8]
    for places in (rows, columns):
        assert float((average * places).sum() / average.sum()) == pytest.approx(30.0, abs=1.0)
