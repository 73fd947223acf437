"""What another network says to a picture, and how classes are found among its own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases_transfer import COLORS, ColorJudge, color_judge, pictures
from torch import nn
from toys import SHARED, needs_shared

from featviz_pl.metrics import TransferProbability, TransferRank, judge_classes
from featviz_pl.networks import FrozenNetwork, load_network

# Finding classes.

IMAGENETTE = [
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
]
WORDNET = [
    "tench, Tinca tinca",
    "chain saw, chainsaw",
    "crane",
    "petrol_pump, gas pump",
    "crane",
    "Cardigan",
    "cardigan",
    "golf-ball",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tench", 0),
        ("TENCH", 0),
        ("Tinca_tinca", 0),
        ("tench, Tinca tinca", 0),
        ("chainsaw", 1),
        ("Chain Saw", 1),
        ("gas pump", 3),
        ("petrol pump", 3),
        ("Cardigan", 5),  # a dog
        ("cardigan", 6),  # a garment
        ("golf ball", 7),
        (4, 4),
    ],
)
def test_a_class_is_found_by_name_synonym_or_index(name: str | int, expected: int) -> None:
    assert judge_classes([name], WORDNET) == [expected]


def test_the_names_of_imagenette_are_found_in_those_of_torchvision() -> None:
    network, judge = load_network(), load_network("squeezenet1_0", "none")
    found = judge_classes(network.classes, judge.classes)
    # The published indices of the ten classes of Imagenette in ImageNet.
    assert found == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert list(network.classes[:8]) == IMAGENETTE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crane", r"'crane' fits several classes of the judge \(2 'crane', 4 'crane'\); give an index"),
        ("CARDIGAN", r"fits several classes of the judge \(5 'Cardigan', 6 'cardigan'\)"),
        ("tensh", "unknown class of the judge 'tensh'; did you mean 'tench'"),
        ("", "unknown class of the judge ''"),
        ("?", "unknown class of the judge"),
        (8, "the judge has 8 classes, 0 to 7; there is no 8"),
        (-1, "class must be at least 0"),
    ],
)
def test_a_class_that_is_not_there_or_not_clear_is_refused(name: str | int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge_classes([name], WORDNET)


def test_names_need_a_judge_with_names() -> None:
    with pytest.raises(ValueError, match="it has no names of classes to compare 'church' with"):
        judge_classes(["church"], ())
    assert judge_classes([3], ()) == [3]


# Values.


def expected_logits(count: int) -> Any:
    mean = pictures(count).numpy().astype(np.float64).mean((2, 3))
    return 10 * np.concatenate([mean, mean[:, :2].min(1, keepdims=True)], 1)


def test_the_probability_is_the_softmax_over_all_classes_or_over_some() -> None:
    logits = expected_logits(4)
    classes: list[int | str] = ["red", "Green", 2, "sun"]
    everything = TransferProbability(color_judge(), reduction="none")
    everything.update(pictures(4), classes)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(everything.compute().numpy(), shares[np.arange(4), np.arange(4)], rtol=1e-5)
    some = TransferProbability(color_judge(), among=["sun", "red", 1], reduction="none")
    some.update(pictures(4), ["red", "red", "green", "bright_yellow"])
    of_three = np.exp(logits[:, [3, 0, 1]])
    np.testing.assert_allclose(
        some.compute().numpy(), (of_three / of_three.sum(1, keepdims=True))[np.arange(4), [1, 1, 2, 0]], rtol=1e-5
    )


def test_the_rank_counts_the_classes_that_are_preferred() -> None:
    logits, wanted = expected_logits(6), [0, 1, 2, 0, 1, 2]
    metric = TransferRank(color_judge(), reduction="none")
    metric.update(pictures(6), wanted)
    # The lesser of red and green always has an equal: the fourth class.
    order = [
        1 + sum(other > own[place] for other in own) + 0.5 * (list(own).count(own[place]) - 1)
        for own, place in zip(logits, wanted)
    ]
    assert metric.compute().tolist() == order
    assert len(set(order)) > 2


def test_a_judge_that_tells_nothing_ranks_every_class_in_the_middle() -> None:
    blind = FrozenNetwork(nn.Sequential(nn.Flatten(), nn.Linear(3 * 7 * 9, 5)))
    for parameter in blind.module.parameters():
        nn.init.zeros_(parameter)
    rank, probability = TransferRank(blind), TransferProbability(blind)
    for metric in (rank, probability):
        metric.update(pictures(3), [0, 2, 4])
    assert rank.compute().item() == 3.0
    assert probability.compute().item() == pytest.approx(0.2)


@pytest.mark.parametrize("size", [(6, 6), 14, (7, 18)])
def test_pictures_are_shown_at_the_size_of_the_judge(size: int | tuple[int, int]) -> None:
    seen: list[tuple[int, ...]] = []

    class Looks(ColorJudge):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape[-2:]))
            return super().forward(x)

    metric = TransferProbability(FrozenNetwork(Looks(), size=size, classes=COLORS))
    metric.update(pictures(2), "red")
    assert set(seen) == {size if isinstance(size, tuple) else (size, size)}


def test_only_the_centre_of_a_wide_picture_is_shown() -> None:
    wide = torch.zeros(1, 3, 8, 24)
    wide[:, 0, :, 8:16], wide[:, 1, :, :8], wide[:, 2, :, 16:] = 1.0, 1.0, 1.0
    metric = TransferProbability(color_judge(8), reduction="none")
    metric.update(wide, "red")
    assert metric.compute().item() == pytest.approx(np.exp(10) / (np.exp(10) + 3), rel=1e-6)


@pytest.mark.parametrize("size", [None, 8])
def test_pictures_of_inference_mode_and_autocast_are_judged_the_same(size: int | None) -> None:
    expected = TransferProbability(convolutional(size), reduction="none")
    expected.update(pictures(4), 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = TransferProbability(convolutional(size), reduction="none")
        found.update(pictures(4), 1)
    assert torch.equal(found.compute(), expected.compute())


def convolutional(size: int | None = None) -> FrozenNetwork:
    """Build a judge whose answer autocast would round."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.normal_(module[0].weight, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    return FrozenNetwork(module, size=size)


def test_grey_pictures_are_shown_in_color() -> None:
    grey = pictures(2)[:, :1]
    found, expected = (
        TransferProbability(FrozenNetwork(ColorJudge(), [0.5] * 3, std=[0.2] * 3), reduction="none") for _ in range(2)
    )
    found.update(grey, 2)
    expected.update(grey.repeat(1, 3, 1, 1), 2)
    assert torch.equal(found.compute(), expected.compute())


@pytest.mark.parametrize("kind", [TransferProbability, TransferRank])
def test_a_judge_in_training_is_read_anew_after_a_reset(kind: type[TransferProbability | TransferRank]) -> None:
    judge = convolutional()
    metric = kind(judge, reduction="none")
    metric.update(pictures(3), 0)
    before = metric.compute()
    with torch.no_grad():
        judge.module[0].weight.neg_()  # type: ignore[index]
    metric.reset()
    metric.update(pictures(3), 0)
    fresh = kind(judge, reduction="none")
    fresh.update(pictures(3), 0)
    assert torch.equal(metric.compute(), fresh.compute())
    assert not torch.equal(metric.compute(), before)


@pytest.mark.parametrize("kind", [TransferProbability, TransferRank])
def test_classes_that_a_judge_without_names_does_not_have_are_refused(
    kind: type[TransferProbability | TransferRank],
) -> None:
    with pytest.raises(ValueError, match="among: the judge has 4 classes, 0 to 3; there is no 5000"):
        kind(convolutional(), among=[1, 5000]).update(pictures(1), 1)


def test_a_class_outside_of_those_asked_about_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'blue' is not one of the 2 classes of `among`"):
        TransferRank(color_judge(), ["red", "green"]).update(pictures(1), "blue")


@pytest.mark.parametrize("among", [["red"], ["red", 0], []])
def test_a_comparison_needs_two_different_classes(among: list[str | int]) -> None:
    with pytest.raises(ValueError, match="among must list two classes or more, each once"):
        TransferProbability(color_judge(), among)


def test_a_text_is_no_list_of_classes() -> None:
    with pytest.raises(TypeError, match="among must be a list of classes, got the text 'red'"):
        TransferProbability(color_judge(), "red")


def test_a_judge_must_be_a_classifier_that_works() -> None:
    with pytest.raises(ValueError, match=r"judge: it gives \(4, 5, 7\) for each picture"):
        TransferProbability(nn.Conv2d(3, 4, 3)).update(pictures(1), 0)

    class Broken(ColorJudge):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * torch.nan

    with pytest.raises(ValueError, match="judge: its logits are not finite"):
        TransferRank(Broken()).update(pictures(1), 0)


def test_a_judge_that_does_not_tell_its_channels_is_shown_what_it_takes() -> None:
    """Grey pictures are shown in color to judges of color, and as they are to those of grey, of which none has a convolution."""
    weight = torch.randn(4, 63, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(63, 4, bias=False)
    linear.weight.data = weight
    judge = nn.Sequential(nn.Flatten(), linear)
    grey = pictures(2)[:, :1]
    metric = TransferProbability(judge, reduction="none")
    metric.update(grey, 1)
    logits = grey.flatten(1).double().numpy() @ weight.double().numpy().T
    np.testing.assert_allclose(
        metric.compute().numpy(), (np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[:, 1], rtol=1e-5
    )
    colors = TransferProbability(color_judge(), reduction="none")
    colors.update(grey, "red")
    np.testing.assert_allclose(colors.compute().numpy(), 0.25)  # all channels are the same
    with pytest.raises(
        ValueError, match=r"judge: 'Sequential' fails on pictures of shape \(3, 7, 9\): .*mat1 and mat2 shapes"
    ):
        metric.update(pictures(1), 1)
    with pytest.raises(
        ValueError,
        match=r"fails on pictures of shape \(1, 9, 9\): .*; give FrozenNetwork\(judge, size=…\) where it takes",
    ):
        metric.update(torch.rand(1, 1, 9, 9), 1)


@pytest.mark.parametrize("kind", [TransferProbability, TransferRank])
def test_the_judge_is_a_guest_and_the_metric_travels(kind: type[TransferProbability | TransferRank]) -> None:
    judge = color_judge(8)
    judge.module.train()
    metric = kind(judge, ["red", "green"])
    metric.update(pictures(3), "red")
    assert judge.module.training
    assert list(metric.parameters()) == []
    for made in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert made.compute() == metric.compute()
        made.update(pictures(2), "green")
    assert repr(metric) == f"{kind.__name__}(<colors>, among=['red', 'green'])"
    assert repr(kind("embedded", reduction="none")) == f"{kind.__name__}('embedded', reduction='none')"


@needs_shared
def test_photos_are_recognised_by_a_judge_with_real_weights() -> None:
    from featviz_pl.metrics import read_photos

    judge = load_network("squeezenet1_0", SHARED / "weights" / "squeezenet1_0.pth")
    folder = SHARED / "data" / "imagenette2-160" / "val" / "n03028079"
    photos = next(read_photos(sorted(folder.iterdir())[:12], 224))
    own, other = (TransferProbability(judge, load_network().classes, reduction="none") for _ in range(2))
    own.update(photos, "church")
    other.update(photos, "tench")
    assert own.compute().median() > 0.9
    assert other.compute().median() < 0.1
