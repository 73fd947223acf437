"""Objectives on directions: vectors in the space of a layer's units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.activation_axes import at_positions, position_axes, units_last
from featviz_pl.numerics.checks import finite_number, unknown
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.arguments import Vectors, check_width, load_vectors, rows_like
from featviz_pl.objectives.formula import content_hash
from featviz_pl.objectives.positions import (
    Tokens,
    check_position,
    listed_position,
    position_argument,
    position_indices,
    position_label,
)
from featviz_pl.objectives.protocol import Observation, Setting

EPSILON = 1e-4  # Lucid's, added to the lengths of vectors
FLOOR = 0.1  # Lucid's least cosine


class VectorTerm(LayerTerm):
    """Compare a layer with a vector for all pictures, or one for each.

    Args:
        layer: dotted module name, or ``"output"``.
        vectors: (…) for all pictures or (N, …), one for each; a tensor, nested numbers, or a file (.pt, .npy).
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.
        axes: of one vector.
    """

    vectors: Tensor
    vectors_argument = "vectors"

    def __init__(self, layer: str, vectors: Vectors, tokens: Tokens = "all", axes: int = 1) -> None:
        super().__init__(layer, tokens)
        loaded = load_vectors(self.vectors_argument, vectors, (axes, axes + 1))
        self.single = loaded.ndim == axes
        self.register_buffer("vectors", loaded, persistent=False)  # moves with the objective, stays out of checkpoints
        self.picture_count = None if self.single else len(loaded)
        self._hashes = [content_hash(row) for row in ([loaded] if self.single else loaded)]

    def check_term(self, setting: Setting) -> None:
        check_width(self.vectors_argument, self.layer, self.width(setting), self.vectors.shape[-1])

    def target_names(self, count: int) -> list[str]:
        hashes = self._hashes * count if self.single else self._hashes
        return [f"{self.label()}:{type(self).__name__}-{digits}" for digits in hashes]


class Direction(VectorTerm):
    """Maximise a layer along a direction: at each position ``a . v``, averaged over positions.

    ``compare="dot"``: ``mean of a . v * max(floor, cos(a, v)) ^ power``, with
    ``cos(a, v) = a . v / ((1e-4 + |a|) (1e-4 + |v|))``; a power of 0 is the plain dot product, 2 and 4 are what the
    field uses to hold the activation to the direction. ``compare="cosine"``: ``mean of cos(a, v)``.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        vectors: (F,) for all pictures or (N, F), one for each; a tensor, nested numbers, or a file (.pt, .npy).
        compare: ``"dot"`` or ``"cosine"``.
        power: of the cosine beside the dot product, 0 or more.
        floor: least cosine that counts there, above 0 and at most 1.
        whitening: (F, F) S that is applied to the vectors first, ``v S``: the inverse covariance of the layer's
            activations, as the activation atlas does; a tensor, nested numbers, or a file.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when the vectors do not have one number for each unit.

    Example:
        >>> from featviz_pl.objectives import Source
        >>> activation = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 4, 4)
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> Direction("a", [3, 4])(observation).item()
        11.0
        >>> round(Direction("a", [3, 4], compare="cosine")(observation).item(), 3)
        0.984

    Reference:
        Carter, Armstrong, Schubert, Johnson, Olah, "Activation Atlas", Distill, 2019
    """

    whitening: Tensor | None

    def __init__(
        self,
        layer: str,
        vectors: Vectors,
        *,
        compare: Literal["dot", "cosine"] = "dot",
        power: float = 0.0,
        floor: float = FLOOR,
        whitening: Tensor | Sequence[Sequence[float]] | str | None = None,
        tokens: Tokens = "all",
    ) -> None:
        super().__init__(layer, vectors, tokens)
        if compare not in ("dot", "cosine"):
            raise unknown("compare", "way to compare", str(compare), ("dot", "cosine"))
        self.compare = compare
        self.power = finite_number("power", power, least=0.0)
        self.floor = finite_number("floor", floor, above=0.0, most=1.0)
        if compare == "cosine" and self.power:
            raise ValueError(
                f"power: {power!r} is the power of the cosine beside a dot product; leave it at 0 with compare='cosine'"
            )
        matrix = None if whitening is None else load_vectors("whitening", whitening, (2,))
        length = self.vectors.shape[-1]
        if matrix is not None and tuple(matrix.shape) != (length, length):
            raise ValueError(
                f"whitening must be {(length, length)} for vectors of {length} numbers, got {tuple(matrix.shape)}"
            )
        self.register_buffer("whitening", matrix, persistent=False)

    def whitened(self, activation: Tensor) -> Tensor:
        """Return the vectors (N or 1, F), with the device and precision of the activation."""
        vectors = rows_like(self.vectors, activation)
        return vectors if self.whitening is None else vectors @ self.whitening.to(activation)

    def score(self, observation: Observation) -> Tensor:
        activation = self.selected_positions(self.read(observation))
        return compare_vectors(
            activation, self.whitened(activation)[:, None, None], self.compare, self.power, self.floor
        )

    def selected_positions(self, activation: Tensor) -> Tensor:
        """Return the positions that are compared (N, V, positions, units)."""
        return at_positions(activation)


class NeuronDirection(Direction):
    """Maximise a layer along a direction at one position, the centre by default.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        vectors: (F,) for all pictures or (N, F), one for each; a tensor, nested numbers, or a file (.pt, .npy).
        position: as for `Neuron`: (y, x) on the map, the index of a token among the selected ones, or None for the
            centre.
        compare: ``"dot"`` or ``"cosine"``, as for `Direction`.
        power: of the cosine beside the dot product, 0 or more.
        floor: least cosine that counts there, above 0 and at most 1.
        whitening: (F, F) that is applied to the vectors first.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when the vectors do not have one number for each unit, or the position lies outside the layer.

    Example:
        >>> from featviz_pl.objectives import Source
        >>> activation = torch.arange(9.0).view(1, 1, 1, 3, 3)
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> NeuronDirection("a", [2.0])(observation).item(), NeuronDirection("a", [2.0], (0, 1))(observation).item()
        (8.0, 2.0)

    Reference:
        Carter, Armstrong, Schubert, Johnson, Olah, "Activation Atlas", Distill, 2019
    """

    positional = ("position",)

    def __init__(
        self,
        layer: str,
        vectors: Vectors,
        position: int | Sequence[int] | None = None,
        *,
        compare: Literal["dot", "cosine"] = "dot",
        power: float = 0.0,
        floor: float = FLOOR,
        whitening: Tensor | Sequence[Sequence[float]] | str | None = None,
        tokens: Tokens = "all",
    ) -> None:
        options: dict[str, Any] = {"compare": compare, "power": power, "floor": floor, "whitening": whitening}
        super().__init__(layer, vectors, tokens=tokens, **options)
        self.position = listed_position(position)

    def check_term(self, setting: Setting) -> None:
        super().check_term(setting)
        check_position(self.layer, self.position, position_axes(self.shape(setting)), self.tokens)

    def selected_positions(self, activation: Tensor) -> Tensor:
        """Return the position (N, V, 1, units)."""
        last = units_last(activation)
        for index in position_indices(self.position, tuple(last.shape[2:-1]), self.tokens):
            last = last[:, :, index]
        return last[:, :, None]

    def target_names(self, count: int) -> list[str]:
        return [name + position_label(self.position) for name in super().target_names(count)]

    def argument(self, name: str) -> Any:
        return position_argument(self.position) if name == "position" else super().argument(name)


class TensorDirection(VectorTerm):
    """Maximise a layer along a block of vectors, one for each position, centred on the map.

    ``mean over the block's positions of a . t * max(0.1, cos(a, t)) ^ power``; the block begins at
    ``(H - h) // 2, (W - w) // 2``.

    Shape:
        activation (N, V, C, H, W) -> (N, V)

    Args:
        layer: dotted module name.
        tensor: (C, h, w) for all pictures or (N, C, h, w), one for each; a tensor, nested numbers, or a file (.pt,
            .npy).
        power: of the cosine, 0 or more.

    Raises:
        ValueError: when the block has another number of channels than the map, or is larger.

    Example:
        >>> from featviz_pl.objectives import Source
        >>> activation = torch.arange(16.0).view(1, 1, 1, 4, 4)
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): activation})
        >>> TensorDirection("a", [[[1.0, 1.0], [1.0, -1.0]]])(observation).item()  # (5 + 6 + 9 - 10) / 4
        2.5
    """

    vectors_argument = "tensor"

    def __init__(
        self, layer: str, tensor: Tensor | Sequence[Sequence[Sequence[float]]] | str, power: float = 0.0
    ) -> None:
        super().__init__(layer, tensor, axes=3)  # type: ignore[arg-type]
        self.power = finite_number("power", power, least=0.0)

    def check_term(self, setting: Setting) -> None:
        shape, block = self.shape(setting), tuple(self.vectors.shape[-3:])
        if len(shape) != 3:
            raise ValueError(f"tensor: {self.layer!r} gives {shape}, not a map (C, H, W), on which a block could lie")
        if block[0] != shape[0]:
            raise ValueError(f"tensor: {self.layer!r} has {shape[0]} channels, and the block {block} has {block[0]}")
        if block[1] > shape[1] or block[2] > shape[2]:
            raise ValueError(f"tensor: the block {block} is larger than the map of {self.layer!r}, which is {shape}")

    def score(self, observation: Observation) -> Tensor:
        activation = self.read(observation)
        height, width = self.vectors.shape[-2:]
        top, left = (activation.shape[-2] - height) // 2, (activation.shape[-1] - width) // 2
        under = at_positions(activation[..., top : top + height, left : left + width])
        block = self.vectors.to(activation).reshape(-1, 1, *self.vectors.shape[-3:])
        return compare_vectors(under, at_positions(block), power=self.power)

    def argument(self, name: str) -> Any:
        return super().argument("vectors" if name == "tensor" else name)


class Similarity(VectorTerm):
    """Maximise the cosine of a whole layer to an embedding: that of a text in CLIP, or a concept vector.

    ``cos(mean over positions of a, v)``, in [-1, 1]. Unlike `Direction`, the positions are averaged first.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``, such as that of an image encoder.
        vectors: (F,) for all pictures or (N, F), one for each; a tensor, nested numbers, or a file (.pt, .npy).
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when the vectors do not have one number for each unit.

    Example:
        >>> from featviz_pl.objectives import Source
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("output"): torch.tensor([[[3.0, 4.0]]])})
        >>> round(Similarity("output", [1, 0])(observation).item(), 6)
        0.6

    Reference:
        Goh et al., "Multimodal Neurons in Artificial Neural Networks", Distill, 2021
    """

    def score(self, observation: Observation) -> Tensor:
        activation = at_positions(self.read(observation)).mean(2)
        vectors = rows_like(self.vectors, activation)[:, None]
        similarity: Tensor = functional.cosine_similarity(activation, vectors, dim=2)
        return similarity


def compare_vectors(
    activation: Tensor, vectors: Tensor, compare: str = "dot", power: float = 0.0, floor: float = FLOOR, axis: int = 3
) -> Tensor:
    """Compare activations with vectors that broadcast to them, and average over positions.

    Shape:
        (N, V, positions, units), with axis 2 (N, V, units, positions) -> (N, V)
    """
    dot = (activation * vectors).sum(axis)
    if compare == "dot" and power == 0:
        return dot.mean(2)
    # The gradient of a norm is 0, not NaN, for an activation of zeros.
    lengths = [EPSILON + torch.linalg.vector_norm(values, dim=axis) for values in (activation, vectors)]
    cosine = dot / lengths[0] / lengths[1]
    scores: Tensor = cosine if compare == "cosine" else dot * cosine.clamp_min(floor) ** power
    return scores.mean(2)
