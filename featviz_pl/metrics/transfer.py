"""Whether another network recognizes the class that a picture is made for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.metrics.base import PictureMetric, Reduction
from featviz_pl.metrics.cached_reader import CachedReader, NetworkLike, in_channels
from featviz_pl.networks import FrozenNetwork
from featviz_pl.networks.reader import LayerError
from featviz_pl.numerics.checks import first_line, unknown, whole_number


def judge_classes(names: Sequence[str | int], classes: Sequence[str]) -> list[int]:
    """Return the indices of classes among those of a judge, by name or index.

    A name matches exactly, or without regard to case, spaces, ``_`` and ``-``, or as one of several synonyms that
    commas separate, as in WordNet.

    Args:
        names: of classes, or indices, which are returned as they are.
        classes: names of the judge's outputs.

    Raises:
        ValueError: when the judge has no such class, or several that match the name.

    Example:
        >>> judge_classes(["chain_saw", "Tench", 2], ["tench, Tinca tinca", "golf ball", "church", "chainsaw"])
        [3, 0, 2]
    """
    return [_named_index(name, classes) if isinstance(name, str) else _check_index(name, classes) for name in names]


def _named_index(name: str, classes: Sequence[str]) -> int:
    if not classes:
        raise ValueError(f"judge: it has no names of classes to compare {name!r} with; give the index of the class")
    synonyms = {_letters(synonym) for synonym in name.split(",")}
    matches = (
        [index for index, label in enumerate(classes) if label == name]
        or [index for index, label in enumerate(classes) if _letters(label) == _letters(name)]
        or [index for index, label in enumerate(classes) if synonyms & {_letters(part) for part in label.split(",")}]
    )
    if not matches or not _letters(name):
        labels = [part.strip() for label in classes for part in label.split(",")]
        raise unknown("class", "class of the judge", name, labels)
    if len(matches) > 1:
        listed = ", ".join(f"{index} {classes[index]!r}" for index in matches[:5])
        raise ValueError(f"class: {name!r} fits several classes of the judge ({listed}); give an index")
    return matches[0]


def _letters(name: str) -> str:
    """Return a name in lower case without spaces and punctuation."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _check_index(value: int, classes: Sequence[str]) -> int:
    index = whole_number("class", value, least=0)
    if classes:
        _check_outputs("class", [index], len(classes))
    return index


class _Transfer(PictureMetric):
    """Classify pictures by a judge; a subclass reads a value from the logits."""

    higher_is_better: bool | None = None

    def __init__(
        self,
        judge: NetworkLike,
        among: Sequence[str | int] | None = None,
        *,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, **kwargs)
        self._reader = CachedReader(judge)  # no nn.Module: casts and moves of the metric do not change the judge
        if isinstance(among, str):
            raise TypeError(f"among must be a list of classes, got the text {among!r}")
        self.among = None if among is None else list(among)
        self._columns: list[int] | None = None if among is None else judge_classes(list(among), self.judge.classes)
        if self._columns is not None and (len(self._columns) < 2 or len(set(self._columns)) < len(self._columns)):
            raise ValueError(f"among must list two classes or more, each once; in the judge these are {self._columns}")

    @property
    def judge(self) -> FrozenNetwork:
        """The network that classifies."""
        return self._reader.network

    def update(self, pictures: Tensor, classes: int | str | Sequence[int | str]) -> None:
        """Classify further pictures (N, C, H, W) of these classes: one for each, by name or index, or one for all."""
        super().update(pictures, classes)

    def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
        """Return one value (N,) for pictures of the given classes."""
        classes = self._class_indices(inputs[0], len(pictures))
        logits = self._logits(pictures)
        if self._columns is None:
            _check_outputs("class", classes, logits.shape[1])
            return self.read(logits, torch.tensor(classes, device=logits.device))
        _check_outputs("among", self._columns, logits.shape[1])
        missing = next((index for index in classes if index not in self._columns), None)
        if missing is not None:
            name = repr(self.judge.classes[missing]) if self.judge.classes else missing
            raise ValueError(f"class: {name} is not one of the {len(self._columns)} classes of `among`; add it there")
        columns = torch.tensor([self._columns.index(index) for index in classes], device=logits.device)
        return self.read(logits[:, self._columns], columns)

    def read(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Return the value (N,) of the classes in `columns` (N,) of the logits (N, classes), which are in float64."""
        raise NotImplementedError

    def _class_indices(self, classes: Any, count: int) -> list[int]:
        several = isinstance(classes, (Sequence, Tensor)) and not isinstance(classes, str)
        listed = list(classes) if several else [classes] * count
        if len(listed) != count:
            raise ValueError(f"classes: {len(listed)} do not fit {count} pictures; give one, or one for each")
        plain = [int(label) if isinstance(label, Tensor) else label for label in listed]
        return judge_classes(plain, self.judge.classes)

    def _logits(self, pictures: Tensor) -> Tensor:
        """Return the judge's logits (N, classes) for pictures at the judge's size.

        Grayscale pictures are passed in color and then as they are where nothing tells whether the judge takes color.
        """
        channels = self.judge.channels
        if pictures.shape[1] == channels or _knows_channels(self.judge):
            return self._logits_of(in_channels(pictures, channels))
        if pictures.shape[1] == 1:
            with suppress(_JudgeError):
                return self._logits_of(in_channels(pictures, channels))
        return self._logits_of(pictures)

    def _logits_of(self, pictures: Tensor) -> Tensor:
        """Return the judge's logits for pictures in its channels."""
        size = self.judge.size
        try:
            logits = self._reader.activations(pictures, ["output"], size)["output"].double()
        except LayerError:
            raise
        except Exception as error:  # networks refuse pictures in many ways
            hint = "; give FrozenNetwork(judge, size=…) where it takes one size" if size is None else ""
            shape = (pictures.shape[1], *(pictures.shape[2:] if size is None else size))
            raise _JudgeError(
                f"judge: {self.judge.name!r} fails on pictures of shape {tuple(shape)}: {first_line(error)}{hint}"
            ) from error
        if logits.ndim != 2:
            shape = tuple(logits.shape[1:])
            raise ValueError(f"judge: it gives {shape} for each picture; a classifier gives one number for each class")
        if not torch.isfinite(logits).all():
            raise ValueError("judge: its logits are not finite; look for NaN in its weights")
        return logits

    def reset(self) -> None:
        """Forget the pictures, and read the judge anew: it may be in training."""
        super().reset()
        self._reader.reset()

    def __repr__(self) -> str:
        """Return the constructor."""
        among = "" if self.among is None else f", among={self.among!r}"
        reduction = "" if self.reduction == "mean" else f", reduction={self.reduction!r}"
        return f"{type(self).__name__}({self._reader!r}{among}{reduction})"


class _JudgeError(ValueError):
    """Say that the judge fails on the pictures."""


def _knows_channels(judge: FrozenNetwork) -> bool:
    """Say whether a judge tells how many channels it takes, by a constant for each or by a convolution."""
    constants = any(values is not None and len(values) > 1 for values in (judge.mean, judge.std))
    return constants or any(isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for module in judge.module.modules())


def _check_outputs(argument: str, indices: list[int], count: int) -> None:
    """Refuse classes that the judge does not have; the number is known from its names or its first logits."""
    if max(indices) >= count:
        raise ValueError(f"{argument}: the judge has {count} classes, 0 to {count - 1}; there is no {max(indices)}")


class TransferProbability(_Transfer):
    """Measure the probability that another network gives to the class of the picture.

    ``p = softmax(judge(picture))[class]``, over all classes of the judge, or over those of `among` only. Pictures are
    cropped about the center to the aspect of the judge's size, and resized to it; grayscale ones are repeated where the
    judge takes color.

    Range: [0, 1]; higher is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1], classes; compute: () or, with ``"none"``, (all pictures,)

    Args:
        judge: a classifier that the pictures were not made with: a name, an ``nn.Module`` or a `FrozenNetwork`. Read as
            it is at the first update, or at the first one after a reset.
        among: classes to which the judge's logits are restricted, such as those of the network under study.
        reduction, kwargs: of `PictureMetric`.

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
        Szegedy et al., "Intriguing properties of neural networks", 2013: how other networks classify pictures made for
        one; Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization"
        (transferability), 2023
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def read(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Return the probability of each picture's class."""
        return logits.softmax(1).gather(1, columns[:, None])[:, 0]


class TransferRank(_Transfer):
    """Measure the rank of the picture's class among the logits of another network: 1 for its prediction.

    ``rank = 1 + number of classes with a higher logit + half the number of other classes with the same``. Pictures are
    prepared as for `TransferProbability`.

    Range: [1, number of classes]; lower is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1], classes; compute: () or, with ``"none"``, (all pictures,)

    Args:
        judge: a classifier that the pictures were not made with: a name, an ``nn.Module`` or a `FrozenNetwork`. Read as
            it is at the first update, or at the first one after a reset.
        among: classes to which the judge's logits are restricted.
        reduction, kwargs: of `PictureMetric`.

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
        Szegedy et al., "Intriguing properties of neural networks", 2013: how other networks classify pictures made for
        one
    """

    higher_is_better = False
    plot_lower_bound = 1.0

    def read(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Return the rank of each picture's class."""
        logit = logits.gather(1, columns[:, None])
        return 1.0 + (logits > logit).sum(1) + ((logits == logit).sum(1) - 1) / 2
