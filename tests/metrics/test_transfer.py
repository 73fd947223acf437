"""How another network classifies a picture, and how classes are matched with its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from metric_cases_transfer import ColorJudge, color_judge, pictures
from torch import Tensor, nn
from toys import SHARED, needs_shared

from featviz_pl.metrics import TransferProbability, TransferRank, judge_classes, read_photos
from featviz_pl.networks import FrozenNetwork, load_network

Kind = type[TransferProbability | TransferRank]
both = pytest.mark.parametrize("kind", [TransferProbability, TransferRank])


def values(metric: TransferProbability | TransferRank, images: Tensor, classes: Any) -> np.ndarray[Any, Any]:
    """Return the value of each picture in a metric with ``reduction="none"``."""
    metric.update(images, classes)
    result: np.ndarray[Any, Any] = metric.compute().numpy()
    return result


# Matching classes.

WORDNET = ["tench, Tinca tinca", "chain saw, chainsaw", "crane", "petrol_pump, gas pump"]
WORDNET += ["crane", "Cardigan", "cardigan", "golf-ball"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("tench", 0), ("TENCH", 0), ("Tinca_tinca", 0), ("tench, Tinca tinca", 0), ("chainsaw", 1), ("Chain Saw", 1)),
        *(("gas pump", 3), ("petrol pump", 3), ("golf ball", 7), (4, 4)),
        ("Cardigan", 5),  # a dog
        ("cardigan", 6),  # a garment
    ],
)
def test_a_class_is_matched_by_name_synonym_or_index(name: str | int, expected: int) -> None:
    assert judge_classes([name], WORDNET) == [expected]


def test_the_names_of_imagenette_are_matched_with_those_of_torchvision() -> None:
    network, judge = load_network(), load_network("squeezenet1_0", "none")
    # The published indices of the ten classes of Imagenette in ImageNet.
    assert judge_classes(network.classes, judge.classes) == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


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
def test_an_unknown_or_ambiguous_class_is_refused(name: str | int, message: str) -> None:
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


def softmax(logits: Any) -> Any:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_the_probability_is_the_softmax_over_all_classes_or_over_some() -> None:
    logits, rows = expected_logits(4), np.arange(4)
    everything = values(TransferProbability(color_judge(), reduction="none"), pictures(4), ["red", "Green", 2, "sun"])
    np.testing.assert_allclose(everything, softmax(logits)[rows, rows], rtol=1e-5)
    three = TransferProbability(color_judge(), among=["sun", "red", 1], reduction="none")
    probabilities = values(three, pictures(4), ["red", "red", "green", "bright_yellow"])
    np.testing.assert_allclose(probabilities, softmax(logits[:, [3, 0, 1]])[rows, [1, 1, 2, 0]], rtol=1e-5)


def test_the_rank_counts_the_classes_with_higher_logits() -> None:
    classes = [0, 1, 2, 0, 1, 2]
    ranks = values(TransferRank(color_judge(), reduction="none"), pictures(6), classes)
    # The lesser of red and green always has an equal: the fourth class.
    expected = [
        1 + (row > row[column]).sum() + 0.5 * ((row == row[column]).sum() - 1)
        for row, column in zip(expected_logits(6), classes)
    ]
    assert ranks.tolist() == expected
    assert len(set(expected)) > 2


def test_a_judge_of_equal_logits_ranks_every_class_in_the_middle() -> None:
    uniform = FrozenNetwork(nn.Sequential(nn.Flatten(), nn.Linear(3 * 7 * 9, 5)))
    for parameter in uniform.module.parameters():
        nn.init.zeros_(parameter)
    assert values(TransferRank(uniform), pictures(3), [0, 2, 4]) == 3.0
    assert values(TransferProbability(uniform), pictures(3), [0, 2, 4]) == pytest.approx(0.2)


def test_wide_pictures_are_cropped_about_their_center() -> None:
    wide = torch.zeros(1, 3, 8, 24)
    wide[:, 0, :, 8:16], wide[:, 1, :, :8], wide[:, 2, :, 16:] = 1.0, 1.0, 1.0
    probability = values(TransferProbability(color_judge(8)), wide, "red")
    assert probability == pytest.approx(np.exp(10) / (np.exp(10) + 3), rel=1e-6)


def convolutional(size: int | None = None) -> FrozenNetwork:
    """Build a judge whose logits autocast would round."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.normal_(module[0].weight, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    return FrozenNetwork(module, size=size)


@pytest.mark.parametrize("size", [None, 8])
def test_inference_mode_and_autocast_do_not_change_the_logits(size: int | None) -> None:
    expected = values(TransferProbability(convolutional(size), reduction="none"), pictures(4), 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        result = values(TransferProbability(convolutional(size), reduction="none"), pictures(4), 1)
    np.testing.assert_array_equal(result, expected)


def test_grayscale_pictures_are_repeated_for_a_judge_of_color() -> None:
    grey, judge = pictures(2)[:, :1], FrozenNetwork(ColorJudge(), [0.5] * 3, std=[0.2] * 3)
    result, expected = (
        values(TransferProbability(judge, reduction="none"), images, 2) for images in (grey, grey.repeat(1, 3, 1, 1))
    )
    np.testing.assert_array_equal(result, expected)


def test_a_judge_without_convolutions_gets_the_channels_that_it_takes() -> None:
    """Grayscale pictures are repeated for judges of color, and passed as they are to judges of grayscale."""
    weight = torch.randn(4, 63, generator=torch.Generator().manual_seed(0))
    linear = nn.Linear(63, 4, bias=False)
    linear.weight.data = weight
    metric = TransferProbability(nn.Sequential(nn.Flatten(), linear), reduction="none")
    grey = pictures(2)[:, :1]
    logits = grey.flatten(1).double().numpy() @ weight.double().numpy().T
    np.testing.assert_allclose(values(metric, grey, 1), softmax(logits)[:, 1], rtol=1e-5)
    colors = values(TransferProbability(color_judge(), reduction="none"), grey, "red")
    np.testing.assert_allclose(colors, 0.25)  # all channels are the same
    with pytest.raises(
        ValueError, match=r"judge: 'Sequential' fails on pictures of shape \(3, 7, 9\): .*mat1 and mat2"
    ):
        metric.update(pictures(1), 1)
    with pytest.raises(
        ValueError, match=r"of shape \(1, 9, 9\): .*; give FrozenNetwork\(judge, size=…\) where it takes"
    ):
        metric.update(torch.rand(1, 1, 9, 9), 1)


# The judge.


@both
def test_a_judge_in_training_is_read_anew_after_a_reset(kind: Kind) -> None:
    judge = convolutional()
    metric = kind(judge, reduction="none")
    before = values(metric, pictures(3), 0)
    with torch.no_grad():
        judge.module[0].weight.neg_()  # type: ignore[index]
    metric.reset()
    after = values(metric, pictures(3), 0)
    np.testing.assert_array_equal(after, values(kind(judge, reduction="none"), pictures(3), 0))
    assert not np.array_equal(after, before)


@both
def test_the_judge_stays_in_its_mode_and_out_of_the_parameters(kind: Kind) -> None:
    judge = color_judge(8)
    judge.module.train()
    metric = kind(judge, ["red", "green"])
    metric.update(pictures(3), "red")
    assert judge.module.training
    assert list(metric.parameters()) == []
    assert repr(metric) == f"{kind.__name__}(<colors>, among=['red', 'green'])"
    assert repr(kind("embedded", reduction="none")) == f"{kind.__name__}('embedded', reduction='none')"


class NotANumber(ColorJudge):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


@pytest.mark.parametrize(
    ("judge", "among", "label", "message"),
    [
        (convolutional(), [1, 5000], 1, "among: the judge has 4 classes, 0 to 3; there is no 5000"),
        (color_judge(), ["red", "green"], "blue", "'blue' is not one of the 2 classes of `among`"),
        (color_judge(), ["red"], "red", "among must list two classes or more, each once"),
        (color_judge(), ["red", 0], "red", "among must list two classes or more, each once"),
        (color_judge(), "red", "red", "among must be a list of classes, got the text 'red'"),
        (nn.Conv2d(3, 4, 3), None, 0, r"judge: it gives \(4, 5, 7\) for each picture"),
        (NotANumber(), None, 0, "judge: its logits are not finite"),
    ],
)
def test_mistakes_are_explained(judge: Any, among: Any, label: str | int, message: str) -> None:
    for kind in (TransferProbability, TransferRank):
        with pytest.raises((ValueError, TypeError), match=message):
            kind(judge, among).update(pictures(1), label)


@needs_shared
def test_photos_are_recognized_by_a_judge_with_real_weights() -> None:
    judge = load_network("squeezenet1_0", SHARED / "weights" / "squeezenet1_0.pth")
    folder = SHARED / "data" / "imagenette2-160" / "val" / "n03028079"
    photos = next(read_photos(sorted(folder.iterdir())[:12], 224))
    church, tench = (
        values(TransferProbability(judge, load_network().classes, reduction="none"), photos, name)
        for name in ("church", "tench")
    )
    assert np.median(church) > 0.9
    assert np.median(tench) < 0.1
