"""Objectives on the network's classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featviz_pl.numerics.checks import unknown, whole_number
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.objectives.base import Term
from featviz_pl.objectives.protocol import Observation, Setting, Source


class ClassLogit(Term):
    """Maximise a class's logit: an entry of the network's result, before any softmax.

    Shape:
        output (N, V, classes) -> (N, V)

    Args:
        classes: an index or a name for every picture, or several, one for each.

    Raises:
        ValueError: when an index or a name is not among the classes.

    Example:
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("output"): torch.tensor([[[1.0, 5.0]]])}, ("cat", "dog"))
        >>> ClassLogit("dog")(observation).item()
        5.0

    Reference:
        Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2013
    """

    def __init__(self, classes: int | str | Sequence[int | str]) -> None:
        super().__init__()
        self.single = isinstance(classes, str) or not isinstance(classes, Sequence)
        listed = [classes] if isinstance(classes, str) or not isinstance(classes, Sequence) else list(classes)
        if not listed:
            raise ValueError("classes must hold at least one class")
        self.classes = tuple(one if isinstance(one, str) else whole_number("class", one, least=0) for one in listed)

    def term_sources(self) -> Sequence[Source]:
        """Return the network's result."""
        return (Source("output"),)

    def term_count(self) -> int | None:
        """Return one picture for each class, or any number for a single one."""
        return None if self.single else len(self.classes)

    def check_term(self, setting: Setting) -> None:
        """Refuse classes that the network does not have."""
        shape = setting.shapes[Source("output")]
        if len(shape) != 1:
            raise ValueError(
                f"classes: the network's output has shape {shape} for each picture, not (classes,); use Channel('output', …)"
            )
        for index in self._indices(setting.class_names):
            if index >= shape[0]:
                raise ValueError(f"class: the network has {shape[0]} classes, 0 to {shape[0] - 1}; there is no {index}")

    def _indices(self, names: tuple[str, ...]) -> list[int]:
        indices: list[int] = []
        for one in self.classes:
            if isinstance(one, int):
                indices.append(one)
            elif not names:
                raise ValueError(
                    f"class: the network has no class names, so {one!r} means nothing; give an index, or FrozenNetwork(classes=…)"
                )
            elif one not in names:
                raise unknown("class", "class", one, names)
            else:
                indices.append(names.index(one))
        return indices

    def own_entry(self, observation: Observation, values: Tensor) -> Tensor:
        """Return each picture's own class (N, V) of values (N, V, classes)."""
        indices = self._indices(observation.class_names)
        if len(indices) == 1:
            return values[:, :, indices[0]]
        chosen = numbers_on(values.device, indices)
        return values[torch.arange(len(chosen), device=values.device), :, chosen]

    def score(self, observation: Observation) -> Tensor:
        """Pick the logit."""
        return self.own_entry(observation, observation.activation(Source("output")))

    def target_names(self, count: int) -> list[str]:
        """Return ``output:class``."""
        return [f"output:{one}" for one in (self.classes if not self.single else self.classes * count)]

    def formula(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}({self.classes[0] if self.single else list(self.classes)!r})"


class ClassProbability(ClassLogit):
    """Maximise a class's probability, the softmax of the network's result.

    Unlike the logit it can also rise by lowering the other classes, which often makes a poorer picture.

    Shape:
        output (N, V, classes) -> (N, V) in [0, 1]

    Args:
        classes: an index or a name for every picture, or several, one for each.

    Raises:
        ValueError: when an index or a name is not among the classes.

    Example:
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("output"): torch.zeros(1, 1, 4)})
        >>> ClassProbability(3)(observation).item()
        0.25

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, observation: Observation) -> Tensor:
        """Pick the probability."""
        return self.own_entry(observation, observation.activation(Source("output")).softmax(2))
