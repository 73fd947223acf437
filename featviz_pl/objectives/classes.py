"""Objectives on the network's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from featviz_pl.numerics.checks import unknown, whole_number
from featviz_pl.objectives.arguments import select_units
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
        >>> import torch
        >>> logits = {Source("output"): torch.tensor([[[1.0, 5.0]]])}
        >>> ClassLogit("dog")(Observation(torch.zeros(1, 3, 4, 4), logits, class_names=("cat", "dog"))).item()
        5.0

    Reference:
        Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2013
    """

    def __init__(self, classes: int | str | Sequence[int | str]) -> None:
        super().__init__()
        self.single = isinstance(classes, str) or not isinstance(classes, Sequence)
        names = [classes] if isinstance(classes, str) or not isinstance(classes, Sequence) else list(classes)
        if not names:
            raise ValueError("classes must hold at least one class")
        self.classes = tuple(name if isinstance(name, str) else whole_number("class", name, least=0) for name in names)
        self.picture_count = None if self.single else len(self.classes)

    def term_sources(self) -> Sequence[Source]:
        return (Source("output"),)

    def check_term(self, setting: Setting) -> None:
        shape = setting.shapes[Source("output")]
        if len(shape) != 1:
            raise ValueError(
                f"classes: the network's output has shape {shape} for each picture, not (classes,); "
                "use Channel('output', …)"
            )
        for index in self._indices(setting.class_names):
            if index >= shape[0]:
                raise ValueError(f"class: the network has {shape[0]} classes, 0 to {shape[0] - 1}; there is no {index}")

    def _indices(self, names: tuple[str, ...]) -> list[int]:
        for name in self.classes:
            if isinstance(name, str) and not names:
                raise ValueError(
                    f"class: the network has no class names, so {name!r} is unknown; give an index, or "
                    "FrozenNetwork(classes=…)"
                )
            if isinstance(name, str) and name not in names:
                raise unknown("class", "class", name, names)
        return [names.index(name) if isinstance(name, str) else name for name in self.classes]

    def score(self, observation: Observation) -> Tensor:
        return select_units(observation.activation(Source("output")), self._indices(observation.class_names))

    def target_names(self, count: int) -> list[str]:
        return [f"output:{name}" for name in (self.classes * count if self.single else self.classes)]

    def argument(self, name: str) -> Any:
        if name != "classes":
            return super().argument(name)
        return self.classes[0] if self.single else list(self.classes)


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
        >>> import torch
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("output"): torch.zeros(1, 1, 4)})
        >>> ClassProbability(3)(observation).item()
        0.25

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, observation: Observation) -> Tensor:
        probabilities = observation.activation(Source("output")).softmax(2)
        return select_units(probabilities, self._indices(observation.class_names))
