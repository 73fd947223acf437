"""The tree of objectives: terms at the leaves, arithmetic above them."""

from __future__ import annotations

import ast
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from featviz_pl.numerics.checks import finite_number
from featviz_pl.objectives.formula import Formula, argument_formula, call_formula, number_formula
from featviz_pl.objectives.protocol import Observation, Setting, Source


class Objective(nn.Module, ABC):
    """Score pictures; more is better.

    Objectives never see a network: they name the activations that they need (`sources`) and read them from an
    `Observation`. Every node returns one score for each picture in each view, (N, V); the mean over views is taken at
    the root. Arithmetic with numbers and other objectives makes new nodes and never changes an operand; ``repr`` is the
    formula.

    Shape:
        Observation of N pictures in V views -> (N, V), or (N, 1) for what does not depend on the view
    """

    joint: bool = False  #: couples the pictures of one view
    joint_views: bool = False  #: needs all views at once, so views cannot be divided over processes
    positional: ClassVar[tuple[str, ...]] = ()  #: arguments with a default that the formula writes without their name

    @abstractmethod
    def forward(self, observation: Observation) -> Tensor:
        """Return the scores (N, V)."""

    def children_objectives(self) -> list[Objective]:
        """Return the operands of a node, none for a term."""
        return [child for child in self.children() if isinstance(child, Objective)]

    def walk(self) -> Iterator[Objective]:
        """Yield this node and all below it."""
        yield self
        for child in self.children_objectives():
            yield from child.walk()

    def optimized(self) -> Iterator[Objective]:
        """Yield this node and all below it that contribute to the gradient."""
        yield self
        for child in self.children_objectives():
            yield from child.optimized()

    def terms(self) -> list[Term]:
        """Return the leaves that score something, in the order of the formula."""
        return [node for node in self.walk() if isinstance(node, Term)]

    def sources(self) -> list[Source]:
        """Return every activation that the tree needs, each once."""
        return list(dict.fromkeys(source for child in self.children_objectives() for source in child.sources()))

    def count(self) -> int | None:
        """Return the number of pictures that the tree requires, None where any number will do.

        Raises:
            ValueError: when two terms require different numbers.
        """
        counts = self.counts()
        if len(counts) > 1:
            parts = ", ".join(f"{part!r} asks for {count}" for count, part in counts.items())
            raise ValueError(f"objective: the terms ask for different numbers of pictures: {parts}")
        return next(iter(counts), None)

    def counts(self) -> dict[int, Objective]:
        """Return every required number of pictures, with a part that requires it."""
        return {count: part for child in self.children_objectives() for count, part in child.counts().items()}

    def check(self, setting: Setting) -> None:
        """Raise ValueError, before the first step, for what cannot work in this setting."""
        for child in self.children_objectives():
            child.check(setting)

    def targets(self, count: int) -> list[str]:
        """Return the target of each picture, in the shorthand of targets where there is one."""
        parts = self.named_targets(count)
        return (
            [" & ".join(dict.fromkeys(names)) for names in zip(*parts)] if parts else [self.portable_formula()] * count
        )

    def named_targets(self, count: int) -> list[list[str]]:
        """Return the target of each picture for every part that has targets."""
        return [names for child in self.children_objectives() for names in child.named_targets(count)]

    def __add__(self, other: Objective | float) -> Objective:
        return Sum([self, as_objective(other)])

    def __radd__(self, other: float) -> Objective:
        return Sum([as_objective(other), self])

    def __sub__(self, other: Objective | float) -> Objective:
        return Sum([self, -as_objective(other)])

    def __rsub__(self, other: float) -> Objective:
        return Sum([as_objective(other), -self])

    def __mul__(self, other: Objective | float) -> Objective:
        return Product(self, as_objective(other))

    def __rmul__(self, other: float) -> Objective:
        return Product(as_objective(other), self)

    def __truediv__(self, other: Objective | float) -> Objective:
        return Quotient(self, as_objective(other))

    def __rtruediv__(self, other: float) -> Objective:
        return Quotient(as_objective(other), self)

    def __neg__(self) -> Objective:
        return Product(Constant(-1.0), self)

    def __pow__(self, exponent: float) -> Objective:
        return Power(self, exponent)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Objective:
        """Move or cast the tensors of the objective, but never below float32, unlike the network."""

        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            reduced = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if reduced and tensor.is_floating_point() else moved

        self._apply_to_unregistered(at_least_float32)
        super()._apply(at_least_float32, recurse)  # type: ignore[no-untyped-call]
        return self

    def _apply_to_unregistered(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast also the tensors that are not registered as buffers or submodules."""

    def __repr__(self) -> str:
        return self.formula()

    def formula(self) -> str:
        """Return the expression that builds this tree, without arguments that have their defaults."""
        return self.formula_with()

    def formula_with(self, **texts: str) -> str:
        """Return the constructor call with these texts for some of the arguments."""
        parts = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = Formula(texts[name]) if name in texts else self.argument(name)
            variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            if variadic or inspect.ismethod(value) or value is inspect.Parameter.empty:
                continue
            plain = isinstance(value, (str, int, float, tuple, list, type(None)))
            if not plain or value != parameter.default:
                named = parameter.default is not inspect.Parameter.empty and name not in self.positional
                parts.append(f"{name}={argument_formula(value)}" if named else argument_formula(value))
        return call_formula(type(self).__name__, *parts)

    def argument(self, name: str) -> Any:
        """Return the value of a constructor argument for the formula: the attribute of that name, unless overridden."""
        return getattr(self, name, inspect.Parameter.empty)

    def portable_formula(self) -> str:
        """Return the formula with files by their names alone: the same wherever they lie.

        Example:
            >>> from featviz_pl.objectives import Channel
            >>> (Channel("a", 1) / Channel("photos/cat.png", 2)).portable_formula()
            "Channel('a', 1) / Channel('cat.png', 2)"
        """
        quoted = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
        return re.sub(quoted, lambda text: repr(PurePath(ast.literal_eval(text[0])).name), self.formula())


class Term(Objective):
    """Score one thing: the base of new objectives, which implement `score`.

    A term that reads activations overrides `term_sources`; one that has a target of its own for each picture sets
    `picture_count`; one that can be impossible overrides `check_term`. Set the class attributes `joint` and
    `joint_views` where they apply. The formula is made of attributes named like the arguments of the constructor.
    """

    picture_count: int | None = None  #: number of pictures that the term requires, None for any
    has_targets: bool = True  #: names the targets of pictures, if it reads activations

    @abstractmethod
    def score(self, observation: Observation) -> Tensor:
        """Return (N, V), or (N, 1) for what does not depend on the view."""

    def term_sources(self) -> Sequence[Source]:
        """Return the activations that `score` reads."""
        return ()

    def check_term(self, setting: Setting) -> None:
        """Raise ValueError for what cannot work in this setting."""

    def target_names(self, count: int) -> list[str]:
        """Return the target of each picture."""
        return [self.portable_formula()] * count

    def counts(self) -> dict[int, Objective]:
        """Return the required number of pictures, with this term."""
        return super().counts() | ({} if self.picture_count is None else {self.picture_count: self})

    def sources(self) -> list[Source]:
        """Return the activations of this term, each once."""
        return list(dict.fromkeys(self.term_sources()))

    def check(self, setting: Setting) -> None:
        """Raise ValueError for what cannot work in this setting."""
        self.check_term(setting)

    def named_targets(self, count: int) -> list[list[str]]:
        """Return the targets of a term that reads activations, unless other terms name them."""
        return [self.target_names(count)] if self.has_targets and self.term_sources() else []

    def name(self) -> str:
        """Return the name under which the score is logged."""
        layers = [source.layer for source in self.term_sources()]
        return ".".join([type(self).__name__, *dict.fromkeys(layers)])

    def forward(self, observation: Observation) -> Tensor:
        """Score, and record the score for logging."""
        scores = self.score(observation)
        observation.record(self.name(), scores)
        return scores


class Constant(Objective):
    """Represent a number in a formula.

    Args:
        value: the number, finite.

    Example:
        >>> Constant(0.5)
        0.5
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = finite_number("a number in an objective", value)

    def forward(self, observation: Observation) -> Tensor:
        """Return the number for every picture."""
        pictures = observation.pictures
        precision = torch.promote_types(pictures.dtype, torch.float32)
        return torch.full((len(pictures), 1), self.value, dtype=precision, device=pictures.device)

    def formula(self) -> str:
        return number_formula(self.value)


class Sum(Objective):
    """Add objectives; sums inside a sum are flattened.

    Args:
        terms: one objective or more.

    Example:
        >>> from featviz_pl.objectives import Channel, TotalVariation
        >>> Channel("features.9", 33) - 1e-4 * TotalVariation()
        Channel('features.9', 33) - 0.0001 * TotalVariation()
    """

    def __init__(self, terms: Sequence[Objective]) -> None:
        super().__init__()
        operands: list[Objective] = []
        for term in terms:
            operands += term.children_objectives() if isinstance(term, Sum) else [as_objective(term)]
        if not operands:
            raise ValueError("terms must hold at least one objective")
        self.operands = nn.ModuleList(operands)

    def children_objectives(self) -> list[Objective]:
        return [term for term in self.operands if isinstance(term, Objective)]

    def forward(self, observation: Observation) -> Tensor:
        """Add the scores; a score without views counts in each."""
        first, *remaining = [term(observation) for term in self.children_objectives()]
        return sum(remaining, start=first)  # type: ignore[no-any-return]

    def formula(self) -> str:
        first, *remaining = [term.formula() for term in self.children_objectives()]
        return first + "".join(f" - {part[1:]}" if part.startswith("-") else f" + {part}" for part in remaining)


class Product(Objective):
    """Multiply two objectives, view by view.

    Args:
        left: first factor.
        right: second factor.

    Example:
        >>> from featviz_pl.objectives import L2
        >>> -(2 * L2())
        -2 * L2()
    """

    def __init__(self, left: Objective, right: Objective) -> None:
        super().__init__()
        left, right = as_objective(left), as_objective(right)
        if isinstance(left, Constant) and isinstance(right, Product) and isinstance(right.left, Constant):
            left, right = Constant(left.value * right.left.value), right.right
        self.left: Objective = left
        self.right: Objective = right

    def forward(self, observation: Observation) -> Tensor:
        return self.left(observation) * self.right(observation)  # type: ignore[no-any-return]

    def formula(self) -> str:
        if isinstance(self.left, Constant) and self.left.value == -1:
            return f"-{_bracketed(self.right)}"
        return f"{_bracketed(self.left)} * {_bracketed(self.right)}"


class Quotient(Objective):
    """Divide one objective by another, view by view.

    Args:
        left: dividend.
        right: divisor.

    Example:
        >>> from featviz_pl.objectives import Channel
        >>> Channel("features.9", 33) / Channel("features.9", 34)
        Channel('features.9', 33) / Channel('features.9', 34)
    """

    def __init__(self, left: Objective, right: Objective) -> None:
        super().__init__()
        self.left: Objective = as_objective(left)
        self.right: Objective = as_objective(right)
        if isinstance(self.right, Constant) and self.right.value == 0:
            raise ValueError("an objective cannot be divided by 0")

    def forward(self, observation: Observation) -> Tensor:
        return self.left(observation) / self.right(observation)  # type: ignore[no-any-return]

    def formula(self) -> str:
        """Write the fraction, with brackets where precedence needs them."""
        divisor = self.right.formula()
        brackets = isinstance(self.right, (Sum, Product, Quotient))
        return f"{_bracketed(self.left)} / {f'({divisor})' if brackets else divisor}"


class Power(Objective):
    """Raise an objective to a power, view by view.

    A power that is no whole number is not finite where the score is negative.

    Args:
        base: an objective.
        exponent: a number.

    Example:
        >>> from featviz_pl.objectives import Channel
        >>> -(Channel("features.9", 33) ** 2), (2 * Channel("features.9", 33)) ** 0.5
        (-Channel('features.9', 33) ** 2, (2 * Channel('features.9', 33)) ** 0.5)
    """

    def __init__(self, base: Objective, exponent: float) -> None:
        super().__init__()
        self.base: Objective = as_objective(base)
        if not isinstance(exponent, (int, float)):
            raise TypeError(f"exponent must be a number, got {exponent!r}")
        self.exponent = finite_number("exponent", exponent)

    def forward(self, observation: Observation) -> Tensor:
        return self.base(observation) ** self.exponent  # type: ignore[no-any-return]

    def formula(self) -> str:
        """Write the power, with brackets around everything that binds less."""
        base = self.base.formula()
        brackets = isinstance(self.base, (Sum, Product, Quotient, Power)) or base.startswith("-")
        return f"{f'({base})' if brackets else base} ** {number_formula(self.exponent)}"


def as_objective(value: Objective | float) -> Objective:
    """Return an objective as it is, and a number as a `Constant`.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, Objective):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Constant(value)
    raise TypeError(f"an objective combines with objectives and numbers, not with {type(value).__name__} ({value!r})")


def _bracketed(node: Objective) -> str:
    return f"({node.formula()})" if isinstance(node, Sum) else node.formula()
