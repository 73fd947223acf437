"""Whether another network sees in a picture what it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from featviz_pl.metrics.base import PictureMetric
from featviz_pl.metrics.embedding import in_channels
from featviz_pl.networks import ActivationReader, FrozenNetwork, as_network
from featviz_pl.networks.reader import LayerError
from featviz_pl.numerics.checks import first_line, unknown, whole_number
from featviz_pl.numerics.resampling import crop_and_resize


def judge_classes(names: Sequence[str | int], classes: Sequence[str]) -> list[int]:
    """Find classes among those of a judge, by name or index.

    A name is found as it is written, or without regard to case, spaces, ``_`` and ``-``, or as one of several synonyms
    that commas separate, as WordNet lists them.

    Args:
        names: of classes, or indices, which are returned as they are.
        classes: names of the judge's outputs.

    Raises:
        ValueError: when the judge has no such class, or several that the name fits.

    Example:
        >>> judge_classes(["chain_saw", "Tench", 2], ["tench, Tinca tinca", "golf ball", "church", "chainsaw"])
        [3, 0, 2]
    """
    return [_found(name, classes) if isinstance(name, str) else _checked(name, classes) for name in names]


def _found(name: str, classes: Sequence[str]) -> int:
    if not classes:
        raise ValueError(
            f"judge: it has no names of classes, among which {name!r} could be found; give the index of the class"
        )
    wanted = {_letters(part) for part in name.split(",")}
    exact = [index for index, other in enumerate(classes) if other == name]
    same = exact or [index for index, other in enumerate(classes) if _letters(other) == _letters(name)]
    found = same or [
        index for index, other in enumerate(classes) if wanted & {_letters(part) for part in other.split(",")}
    ]
    if not found or not _letters(name):
        raise unknown(
            "class", "class of the judge", name, [part.strip() for other in classes for part in other.split(",")]
        )
    if len(found) > 1:
        listed = ", ".join(f"{index} {classes[index]!r}" for index in found[:5])
        raise ValueError(f"class: {name!r} fits several classes of the judge ({listed}); give an index")
    return found[0]


def _letters(name: str) -> str:
    """Return what remains of a name without case, spaces and signs."""
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def _checked(index: int, classes: Sequence[str]) -> int:
    chosen = whole_number("class", index, least=0)
    if classes and chosen >= len(classes):
        raise ValueError(f"class: the judge has {len(classes)} classes, 0 to {len(classes) - 1}; there is no {chosen}")
    return chosen


class _Transfer(PictureMetric):
    """Ask a judge about pictures; a subclass says what is read from its answer."""

    higher_is_better: bool | None = None

    def __init__(
        self,
        judge: FrozenNetwork | nn.Module | str,
        among: Sequence[str | int] | None = None,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, **kwargs)
        self._given = repr(judge) if isinstance(judge, str) else None
        self.judge = as_network(judge)  # no nn.Module: casts and moves of the metric do not reach it
        if isinstance(among, str):
            raise TypeError(f"among must be a list of classes, got the text {among!r}")
        self.among = None if among is None else list(among)
        self._columns = None if among is None else _distinct(judge_classes(list(among), self.judge.classes))
        self._reader: ActivationReader | None = None

    def update(self, pictures: Tensor, classes: int | str | Sequence[int | str]) -> None:
        """Judge further pictures (N, C, H, W) of these classes: one for each, by name or index, or one for all."""
        super().update(pictures, classes)

    def measure(self, pictures: Tensor, *others: Any) -> Tensor:
        """Return one value (N,) for pictures of the given classes."""
        wanted = self._wanted(others[0], len(pictures))
        answer = self._answer(pictures)
        if self._columns is None:
            places = wanted
            _check_outputs("class", wanted, answer.shape[1])
        else:
            _check_outputs("among", self._columns, answer.shape[1])
            missing = next((index for index in wanted if index not in self._columns), None)
            if missing is not None:
                named = repr(self.judge.classes[missing]) if self.judge.classes else missing
                raise ValueError(
                    f"class: {named} is not one of the {len(self._columns)} classes that `among` lists; add it there"
                )
            places = [self._columns.index(index) for index in wanted]
            answer = answer[:, self._columns]
        return self.read(answer, torch.tensor(places, device=answer.device))

    def read(self, answer: Tensor, places: Tensor) -> Tensor:
        """Return the value (N,) of the class at `places` in the answer (N, classes), the logits in float64."""
        raise NotImplementedError

    def _wanted(self, classes: Any, count: int) -> list[int]:
        listed = (
            list(classes)
            if isinstance(classes, (Sequence, Tensor)) and not isinstance(classes, str)
            else [classes] * count
        )
        listed = [int(one) if isinstance(one, Tensor) else one for one in listed]
        if len(listed) != count:
            raise ValueError(f"classes: {len(listed)} do not fit {count} pictures; give one, or one for each")
        return judge_classes(listed, self.judge.classes)

    def _answer(self, pictures: Tensor) -> Tensor:
        """Return the judge's logits (N, classes) for pictures at the judge's own size, without casts of the program around it."""
        *others, last = self._forms(pictures)
        for shown in others:
            with suppress(_FailsError):
                return self._asked(shown)
        return self._asked(last)

    def _forms(self, pictures: Tensor) -> list[Tensor]:
        """Return what the judge may take: grey pictures, where nothing tells whether it takes color, in color and as they are."""
        channels = self.judge.channels
        if pictures.shape[1] == channels or _tells_channels(self.judge):
            return [in_channels(pictures, channels)]
        return [in_channels(pictures, channels), pictures] if pictures.shape[1] == 1 else [pictures]

    def _asked(self, shown: Tensor) -> Tensor:
        """Return the judge's logits for pictures in its channels."""
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(shown.device.type, enabled=False):
            if self._reader is None:
                self._reader = self.judge.reader()
            size = self.judge.size
            # A new tensor also where nothing is resized: those made in inference mode could not be probed.
            seen = (
                shown.clone()
                if size is None
                else torch.cat([crop_and_resize(picture[None], size) for picture in shown]).clone()
            )
            try:
                answer = self._reader.activations(seen, ["output"])["output"].double()
            except LayerError:
                raise
            except Exception as error:  # networks refuse pictures in many ways
                more = "; give FrozenNetwork(judge, size=…) where it takes one size" if size is None else ""
                raise _FailsError(
                    f"judge: {self.judge.name!r} fails on pictures of shape {tuple(seen.shape[1:])}: {first_line(error)}{more}"
                ) from error
        if answer.ndim != 2:
            raise ValueError(
                f"judge: it gives {tuple(answer.shape[1:])} for each picture; a classifier gives one number for each class"
            )
        if not torch.isfinite(answer).all():
            raise ValueError("judge: its answer is not finite; look for NaN in its weights")
        return answer

    def reset(self) -> None:
        """Forget the pictures, and read the judge anew: it may be in training."""
        super().reset()
        self._reader = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the reader behind: it is made anew where the metric arrives."""
        return {**super().__getstate__(), "_reader": None}

    def __repr__(self) -> str:
        """Return the constructor."""
        among = "" if self.among is None else f", among={self.among!r}"
        reduction = "" if self.reduction == "mean" else f", reduction={self.reduction!r}"
        return f"{type(self).__name__}({self._given or f'<{self.judge.name}>'}{among}{reduction})"


class _FailsError(ValueError):
    """Say that the judge cannot take the pictures."""


def _tells_channels(judge: FrozenNetwork) -> bool:
    """Say whether a judge tells how many channels it takes, by a constant for each or by a convolution."""
    constants = any(values is not None and len(values) > 1 for values in (judge.mean, judge.std))
    return constants or any(isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for module in judge.module.modules())


def _check_outputs(argument: str, indices: list[int], count: int) -> None:
    """Refuse classes that the judge does not have: one without names says how many it has when it answers."""
    if max(indices) >= count:
        raise ValueError(f"{argument}: the judge has {count} classes, 0 to {count - 1}; there is no {max(indices)}")


def _distinct(indices: list[int]) -> list[int]:
    if len(indices) < 2 or len(set(indices)) < len(indices):
        raise ValueError(f"among must list two classes or more, each once; in the judge these are {indices}")
    return indices


class TransferProbability(_Transfer):
    """Measure the probability that another network gives to the class of the picture.

    ``p = softmax(judge(picture))[class]``, over all classes of the judge, or over those of `among` only. Pictures are
    cut about the centre to the aspect of the judge's own size, and resized to it; grey ones are shown in color where
    the judge takes color.

    Range: [0, 1]; higher is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1], classes; compute: () or, with ``"none"``, (all pictures,)

    Args:
        judge: a classifier that the pictures were not made with: a name, an ``nn.Module`` or a `FrozenNetwork`. Read as
            it is at the first update, or at the first one after a reset.
        among: classes to which the judge's answer is restricted, such as those of the network whose pictures are
            judged.
        reduction: ``"mean"`` or ``"none"``.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when the judge does not have a class.

    Example:
        >>> class Reddest(nn.Module):
        ...     def forward(self, x):
        ...         return 100 * x.mean((2, 3))
        >>> judge = FrozenNetwork(Reddest(), classes=["red", "green", "blue"])
        >>> metric = TransferProbability(judge)
        >>> metric.update(torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1).expand(1, 3, 8, 8), "red")
        >>> round(metric.compute().item(), 3)
        1.0

    Reference:
        Szegedy et al., "Intriguing properties of neural networks", 2013: what other networks make of pictures made for
        one; Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization"
        (transferability), 2023
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def read(self, answer: Tensor, places: Tensor) -> Tensor:
        """Return the probability of each picture's class."""
        return answer.softmax(1).gather(1, places[:, None])[:, 0]


class TransferRank(_Transfer):
    """Measure the place of the picture's class in another network's answer: 1 when it is the first guess.

    ``rank = 1 + number of classes with a higher logit + half the number of other classes with the same``. Pictures are
    shown as for `TransferProbability`.

    Range: [1, number of classes]; lower is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1], classes; compute: () or, with ``"none"``, (all pictures,)

    Args:
        judge: a classifier that the pictures were not made with: a name, an ``nn.Module`` or a `FrozenNetwork`. Read as
            it is at the first update, or at the first one after a reset.
        among: classes to which the judge's answer is restricted.
        reduction: ``"mean"`` or ``"none"``.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when the judge does not have a class.

    Example:
        >>> class Reddest(nn.Module):
        ...     def forward(self, x):
        ...         return 100 * x.mean((2, 3))
        >>> metric = TransferRank(FrozenNetwork(Reddest(), classes=["red", "green", "blue"]), reduction="none")
        >>> metric.update(torch.tensor([0.9, 0.3, 0.1]).view(1, 3, 1, 1).expand(2, 3, 8, 8), ["green", "blue"])
        >>> metric.compute().tolist()
        [2.0, 3.0]

    Reference:
        Szegedy et al., "Intriguing properties of neural networks", 2013: what other networks make of pictures made for
        one
    """

    higher_is_better = False
    plot_lower_bound = 1.0

    def read(self, answer: Tensor, places: Tensor) -> Tensor:
        """Return the rank of each picture's class."""
        own = answer.gather(1, places[:, None])
        return 1.0 + (answer > own).sum(1) + ((answer == own).sum(1) - 1) / 2
