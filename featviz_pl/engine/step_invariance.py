"""Whether the steps of a run are alike, so that one can stand for all of them but for what it draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from featviz_pl.images import BallImage, Image, MacoImage, PixelImage
from featviz_pl.objectives import Objective
from featviz_pl.objectives.running_term import RunningTerm
from featviz_pl.transforms import GeometricTransform, Roll, Torchvision, Transform, Views


def follows_progress(image: Image, views: Views | None) -> bool:
    """Say whether a step depends on how much of the run is done, but for its draws: pictures must then begin together.

    Example:
        >>> from featviz_pl.images import FourierImage, GrowingImage
        >>> follows_progress(FourierImage(8), None), follows_progress(GrowingImage(8), None)
        (False, True)
    """
    if image.has_idle_parameters or (views is not None and views.schedule is not None):
        return True
    if views is None:
        return False
    drawn = views.sample(0, 0, [0])
    return not _equal(views.transforms.at(drawn, 0.0), views.transforms.at(drawn, 1.0))


def why_not_alike(image: Image, views: Views | None, objective: Objective) -> str | None:
    """Return why a step, computed again with other weights and other draws, may not be another step of the run; None where it is.

    Of what others have written nobody knows, and the answer is careful. A network may be anybody's: what it asks of
    Python objects is read once for a run, see `featviz_pl.networks.fx_reader`.

    Example:
        >>> from featviz_pl.images import FourierImage
        >>> from featviz_pl.objectives import Channel
        >>> why_not_alike(FourierImage(8), Views(Roll(2)), Channel("a", 1))
        'Roll(2) uses what it draws outside of tensors'
    """
    if follows_progress(image, views):
        return "steps follow the progress of the run"
    return _why_not_image(image) or _why_not_objective(objective) or (None if views is None else _why_not_views(views))


def _why_not_image(image: Image) -> str | None:
    if image.alpha:
        return "what is behind transparent pictures is drawn within the step"
    for part in (part for part in image.modules() if isinstance(part, Image)):
        name = type(part).__name__
        if isinstance(part, MacoImage):
            return f"{name} adds up what it hears of each step's gradient"
        if isinstance(part, BallImage) or (isinstance(part, PixelImage) and part.squash == "clip"):
            return f"{name} projects its weights before each step"  # a step that is taken twice would do it twice
        if not _ours(part, "images"):
            return f"{name} may do something else in every step"
    return None


def _why_not_objective(objective: Objective) -> str | None:
    for node in objective.walk():
        if isinstance(node, RunningTerm):
            return f"{node.name()} may remember earlier steps"
        if not _ours(node, "objectives"):
            return f"{type(node).__name__} may do something else in every step"
    for source in objective.sources():
        if source.gradient_of is not None:
            return "the objective reads gradients"
        if source.reference is not None and source.reference.through_views:
            return "a reference goes through the views of each step"
    return None


def _why_not_views(views: Views) -> str | None:
    for part in (part for part in views.transforms.modules() if isinstance(part, Transform)):
        if isinstance(part, (Roll, Torchvision)):
            return f"{part!r} uses what it draws outside of tensors"
        # Whoever wrote a geometric transform: all that is used of it is its matrix, computed on the CPU.
        if not isinstance(part, GeometricTransform) and not _ours(part, "transforms"):
            return f"{type(part).__name__} may do something else in every step"
    return None


def _ours(part: object, room: str) -> bool:
    return type(part).__module__.startswith(f"featviz_pl.{room}.")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)
