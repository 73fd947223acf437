"""The tree of objectives: terms at the leaves, arithmetic above them."""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

import torch
from torch import Tensor, nn

from featviz_pl.numerics.checks import finite_number
from featviz_pl.objectives.protocol import Observation, Setting, Source


class Objective(nn.Module, ABC):
    """Score pictures; more is better.

    Objectives never see a network: they say which activations they need (`sources`) and read them from an
    `Observation`. Every node returns one score for each picture in each view, (N, V); the mean over views is taken at
    the root. Arithmetic with numbers and other objectives makes new nodes and never changes an operand; ``repr`` is the
    formula.

    Shape:
        Observation of N pictures in V views -> (N, V), or (N, 1) for what does not depend on the view
    """

    joint: bool = False  #: couples the pictures of one view
    joint_views: bool = False  #: needs all views at once, so views cannot be divided over processes

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
        """Yield this node and all below it that are optimised, not only watched."""
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
        """Return the number of pictures that the tree asks for, None where any number will do.

        Raises:
            ValueError: when two terms ask for different numbers.
        """
        asked = self.counts()
        if len(asked) > 1:
            parts = ", ".join(f"{part!r} asks for {count}" for count, part in asked.items())
            raise ValueError(f"objective: the terms ask for different numbers of pictures: {parts}")
        return next(iter(asked), None)

    def counts(self) -> dict[int, Objective]:
        """Return every number of pictures that is asked for, with a part that asks for it."""
        return {count: part for child in self.children_objectives() for count, part in child.counts().items()}

    def check(self, setting: Setting) -> None:
        """Refuse, before the first step, what cannot work in this setting."""
        for child in self.children_objectives():
            child.check(setting)

    def targets(self, count: int) -> list[str]:
        """Return a name for each picture: what its terms look for, in the shorthand of targets where there is one."""
        named = self.named_targets(count)
        return (
            [" & ".join(dict.fromkeys(names)) for names in zip(*named)] if named else [self.portable_formula()] * count
        )

    def named_targets(self, count: int) -> list[list[str]]:
        """Return, for each part that looks for something, what it looks for in each picture."""
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
        """Move or cast what an objective holds, but never below float32: scores are not reduced with the network."""

        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            reduced = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if reduced and tensor.is_floating_point() else moved

        self._apply_to_held(at_least_float32)
        super()._apply(at_least_float32, recurse)  # type: ignore[no-untyped-call]
        return self

    def _apply_to_held(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast also what is held without being registered."""

    def __repr__(self) -> str:
        return self.formula()

    @abstractmethod
    def formula(self) -> str:
        """Return the expression that builds this tree."""

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
    """Score one thing. A new objective implements `score` and says what it needs.

    A term that reads activations overrides `term_sources`; one that gives each picture its own unit overrides
    `term_count`; one that can be asked for the impossible overrides `check_term`. Set the class attributes `joint` and
    `joint_views` where they hold.
    """

    @abstractmethod
    def score(self, observation: Observation) -> Tensor:
        """Return (N, V), or (N, 1) for what does not depend on the view."""

    def term_sources(self) -> Sequence[Source]:
        """Return the activations that `score` reads."""
        return ()

    def term_count(self) -> int | None:
        """Return the number of pictures asked for, None for any."""
        return None

    def check_term(self, setting: Setting) -> None:
        """Raise ValueError for what cannot work in this setting."""

    def target_names(self, count: int) -> list[str]:
        """Return what each picture looks for."""
        return [self.portable_formula()] * count

    def counts(self) -> dict[int, Objective]:
        """Return the number of pictures asked for, with this term."""
        count, below = self.term_count(), super().counts()
        return below if count is None else below | {count: self}

    def sources(self) -> list[Source]:
        """Return the activations of this term, each once."""
        return list(dict.fromkeys(self.term_sources()))

    def check(self, setting: Setting) -> None:
        """Refuse what cannot work in this setting."""
        self.check_term(setting)

    def named_targets(self, count: int) -> list[list[str]]:
        """Return what a term that reads activations looks for."""
        return [self.target_names(count)] if self.term_sources() else []

    def name(self) -> str:
        """Return the name under which the score is logged."""
        layers = [source.layer for source in self.term_sources()]
        return ".".join([type(self).__name__, *dict.fromkeys(layers)])

    def forward(self, observation: Observation) -> Tensor:
        """Score, and keep the score for the log."""
        scores = self.score(observation)
        observation.record(self.name(), scores)
        return scores


class Constant(Objective):
    """Stand for a number in a formula.

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
        precision = torch.promote_types(observation.pictures.dtype, torch.float32)
        return torch.full(
            (len(observation.pictures), 1), self.value, dtype=precision, device=observation.pictures.device
        )

    def formula(self) -> str:
        """Return the number, exactly."""
        return number_formula(self.value)


class Sum(Objective):
    """Add objectives; sums inside a sum are flattened.

    Args:
        terms: two or more objectives.

    Example:
        >>> from featviz_pl.objectives import Channel, TotalVariation
        >>> Channel("features.9", 33) - 1e-4 * TotalVariation()
        Channel('features.9', 33) - 0.0001 * TotalVariation()
    """

    def __init__(self, terms: Sequence[Objective]) -> None:
        super().__init__()
        flat: list[Objective] = []
        for term in terms:
            flat += term.children_objectives() if isinstance(term, Sum) else [as_objective(term)]
        if not flat:
            raise ValueError("terms must hold at least one objective")
        self.operands = nn.ModuleList(flat)

    def children_objectives(self) -> list[Objective]:
        """Return the terms."""
        return [term for term in self.operands if isinstance(term, Objective)]

    def forward(self, observation: Observation) -> Tensor:
        """Add the scores; a score without views counts in each."""
        first, *rest = [term(observation) for term in self.children_objectives()]
        total: Tensor = first
        for scores in rest:
            total = total + scores
        return total

    def formula(self) -> str:
        """Join the terms by plus and minus."""
        first, *rest = [term.formula() for term in self.children_objectives()]
        return first + "".join(f" - {part[1:]}" if part.startswith("-") else f" + {part}" for part in rest)


class Product(Objective):
    """Multiply two objectives, view by view.

    Args:
        left: one factor.
        right: the other.

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
        """Multiply the scores."""
        product: Tensor = self.left(observation) * self.right(observation)
        return product

    def formula(self) -> str:
        """Write the factors, with brackets around sums."""
        if isinstance(self.left, Constant) and self.left.value == -1:
            return f"-{_bracketed(self.right)}"
        return f"{_bracketed(self.left)} * {_bracketed(self.right)}"


class Quotient(Objective):
    """Divide one objective by another, view by view.

    Args:
        left: what is divided.
        right: by what.

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
        """Divide the scores."""
        quotient: Tensor = self.left(observation) / self.right(observation)
        return quotient

    def formula(self) -> str:
        """Write the fraction, with brackets where precedence needs them."""
        below = (
            f"({self.right.formula()})" if isinstance(self.right, (Sum, Product, Quotient)) else self.right.formula()
        )
        return f"{_bracketed(self.left)} / {below}"


class Power(Objective):
    """Raise an objective to a power, view by view.

    A power that is no whole number is not finite where the score is negative.

    Args:
        base: what is raised.
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
        """Raise the scores."""
        power: Tensor = self.base(observation) ** self.exponent
        return power

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
    raise TypeError(
        f"an objective goes together with objectives and numbers, not with {type(value).__name__} ({value!r})"
    )


def number_formula(value: float) -> str:
    """Write a number as briefly as is exact.

    Example:
        >>> number_formula(2.0), number_formula(1e-4), number_formula(1234567.0)
        ('2', '0.0001', '1234567.0')
    """
    brief = f"{value:g}"
    return brief if float(brief) == value else repr(value)


def _bracketed(node: Objective) -> str:
    return f"({node.formula()})" if isinstance(node, Sum) else node.formula()
