"""What a target says of a picture: a unit, a class, or an objective without shorthand."""

from __future__ import annotations

from featviz_pl.metrics.evaluation.pictures import EvaluatedPicture
from featviz_pl.metrics.targets import single_target
from featviz_pl.networks import FrozenNetwork


def target_of(picture: EvaluatedPicture, from_file: bool) -> str | None:
    """Return the target of a picture, or None for that of a file whose objective has no shorthand.

    Raises:
        ValueError: when it does not parse, and is not from a file.
    """
    try:
        target = single_target(picture.target)
    except ValueError as error:
        if from_file:
            return None
        raise ValueError(f"{picture.name}: {error}") from error
    # 'output:Direction-…' would parse as a class of that name.
    formula = str(picture.provenance.get("objective", "Class"))
    return None if from_file and target.class_name is not None and "Class" not in formula else picture.target


def is_unit(target: str) -> bool:
    """Say whether photos are measured for a target: a channel or a class."""
    parsed = single_target(target)
    return parsed.units is not None and parsed.position is None


def class_of(target: str, network: FrozenNetwork) -> str | None:
    """Return the name of the class of a target, None where it is of no class, or one without a name.

    Example:
        >>> from featviz_pl.networks import load_network
        >>> network = load_network("embedded")
        >>> class_of("output:4", network), class_of("output:tench", network), class_of("blocks.2:4", network)
        ('church', 'tench', None)
    """
    try:
        parsed = single_target(target)
    except ValueError:
        return None
    if parsed.units is None or parsed.position is not None or parsed.layer != "output":
        return None
    unit = parsed.units[0]
    if isinstance(unit, str):
        return unit
    return network.classes[unit] if unit < len(network.classes) else None


def canonical_target(target: str, network: FrozenNetwork) -> str:
    """Return a target such that equal ones are equal texts: a class by its index, for it may be given by name too.

    Example:
        >>> from featviz_pl.networks import load_network
        >>> network = load_network("embedded")
        >>> canonical_target("output:church", network), canonical_target("output:4", network)
        ('output:4', 'output:4')
    """
    try:
        name = single_target(target).class_name
    except ValueError:
        return target
    return f"output:{network.classes.index(name)}" if name is not None and name in network.classes else target
