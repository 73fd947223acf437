"""Units of a sparse autoencoder, or of any dictionary, on top of a layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featviz_pl.numerics.activation_axes import at_positions
from featviz_pl.numerics.checks import first_line
from featviz_pl.numerics.device_transfer import numbers_on
from featviz_pl.numerics.isolated_copy import frozen_copy
from featviz_pl.objectives.activation import LayerTerm, listed_units, units_formula
from featviz_pl.objectives.positions import Tokens
from featviz_pl.objectives.protocol import Observation, Setting
from featviz_pl.objectives.vector_arguments import content, load_vectors, read_file, spelled

Dictionary = nn.Module | Tensor | Mapping[str, Tensor] | Sequence[Sequence[float]] | str

# Names of weights in SAE Lens, in OpenAI's autoencoders, and in modules with an encoder that is an nn.Linear.
ENCODERS = ("W_enc", "encoder.weight")  # (F, K) and (K, F)
BIASES = ("b_enc", "encoder.bias", "latent_bias")
OFFSETS = ("b_dec", "pre_bias")
AFTER = ("W_dec", "decoder.weight", "decoder.bias", "threshold", "log_threshold")  # what comes after the encoder


class Latent(LayerTerm):
    """Maximise a unit of a sparse autoencoder, or of any dictionary, on top of a layer.

    ``mean over positions of w_k . (a - b_dec) + b_k``: the encoder before its rectifier, which would pass no gradient
    while the unit is off. What a library does to activations before its encoder, such as scaling them, is no part of
    it.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        dictionary: the weights of an encoder by name, or a file of them that ``torch.save`` wrote: ``W_enc`` (F, K) or
            ``encoder.weight`` (K, F) and, where there are such, ``b_enc``, ``encoder.bias`` or ``latent_bias`` (K,),
            and ``b_dec`` or ``pre_bias`` (F,). Or a matrix (K, F): a tensor, rows of numbers, or a file (.pt, .npy). Or
            a module: an ``nn.Linear`` and one whose weights have those names are read as they are now; of any other a
            private frozen copy is run, by its ``encode`` where it has one, from (…, F) to (…, K), and what comes out is
            the score.
        units: one number for every picture, or several, one for each. 0 or more.
        subtract_offset: whether ``b_dec`` is subtracted from the activation; some autoencoders are trained without.
        tokens: of a transformer's layer: ``"all"``, ``"patches"``, ``"class"``, or how many first ones to leave out.

    Raises:
        ValueError: when there is no such unit, or the dictionary is one for activations of another width.

    Example:
        >>> from featviz_pl.objectives import Source
        >>> encoder = {"W_enc": torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0]]), "b_enc": torch.full((3,), 0.5)}
        >>> observation = Observation(torch.zeros(1, 3, 4, 4), {Source("a"): torch.tensor([[[10.0, 1.0]]])})
        >>> Latent("a", encoder, 1)(observation).item()  # 2 * 10 + 3 * 1 + 0.5
        23.5

    Reference:
        Gorton, "The Missing Curve Detectors of InceptionV1: Applying Sparse Autoencoders to InceptionV1 Early Vision",
        2024
    """

    rows: Tensor | None
    biases: Tensor | None
    offset: Tensor | None

    def __init__(
        self,
        layer: str,
        dictionary: Dictionary,
        units: int | Sequence[int],
        subtract_offset: bool = True,
        tokens: Tokens = "all",
    ) -> None:
        super().__init__(layer, tokens)
        self.single, self.units = listed_units(units)
        self.subtract_offset = bool(subtract_offset)
        encoder = _read(dictionary)
        rows = biases = offset = None
        self._guest: tuple[nn.Module, ...] = ()  # in a tuple, so that it is registered nowhere
        if encoder is None:
            assert isinstance(dictionary, nn.Module)
            self._guest = (frozen_copy(dictionary),)
            self._written = _guest_formula(self._guest[0])
        else:
            self._check_units(len(encoder.matrix))
            rows, biases, offset = encoder.of(self.units)
            self._written = encoder.formula(self.units)
        for name, value in (("rows", rows), ("biases", biases), ("offset", offset)):
            self.register_buffer(name, value, persistent=False)

    def term_count(self) -> int | None:
        """Return one picture for each unit, or any number for a single one."""
        return None if self.single else len(self.units)

    def check_term(self, setting: Setting) -> None:
        """Refuse a dictionary for activations of another width."""
        width = self.width(setting)
        if self.rows is not None and self.rows.shape[1] != width:
            raise ValueError(
                f"dictionary: {self.layer!r} has {width} units, and the dictionary is one for {self.rows.shape[1]}; "
                "give the one that was trained on this layer"
            )
        if self._guest:
            parameter = next(self._guest[0].parameters(), torch.zeros(()))
            try:
                with torch.no_grad():
                    result = _encoded(self._guest[0], parameter.new_zeros(1, 1, 1, width))
            except RuntimeError as error:
                raise ValueError(
                    f"dictionary: it does not take the {width} units of {self.layer!r}: {first_line(error)}"
                ) from error
            self._check_units(result.shape[-1])

    def _check_units(self, available: int) -> None:
        for unit in self.units:
            if unit >= available:
                raise ValueError(
                    f"unit: the dictionary has {available} units, 0 to {available - 1}; there is no {unit}"
                )

    def score(self, observation: Observation) -> Tensor:
        """Average the unit over positions."""
        activation = at_positions(self.read(observation))
        if self._guest:
            return self._own(_encoded(self._fitting_guest(activation), activation).mean(2))
        assert self.rows is not None
        mean = activation.mean(2)  # a linear encoder of the mean is the mean of the encoder
        if self.offset is not None and self.subtract_offset:
            mean = mean - self.offset.to(mean)
        scores = (mean * self.rows.to(mean)[:, None]).sum(2)
        return scores if self.biases is None else scores + self.biases.to(scores)[:, None]

    def _own(self, latents: Tensor) -> Tensor:
        """Return each picture's own unit (N, V) of latents (N, V, K)."""
        if len(self.units) == 1:
            return latents[..., self.units[0]]
        chosen = numbers_on(latents.device, self.units)
        return latents[torch.arange(len(chosen), device=latents.device), :, chosen]

    def _fitting_guest(self, activation: Tensor) -> nn.Module:
        """Return the guest where and as precise as the activation is."""
        guest = self._guest[0]
        held = [part for part in (*guest.parameters(), *guest.buffers()) if part.is_floating_point()]
        if any(part.device != activation.device or part.dtype != activation.dtype for part in held):
            guest.to(activation)
        return guest

    def _apply_to_held(self, fn: Callable[[Tensor], Tensor]) -> None:
        for guest in self._guest:
            guest._apply(fn)

    def target_names(self, count: int) -> list[str]:
        """Return ``layer:Latent-unit``."""
        return [f"{self.place()}:Latent-{unit}" for unit in (self.units if not self.single else self.units * count)]

    def arguments(self) -> list[str]:
        """Return the dictionary by its content, and the units."""
        without = [] if self.subtract_offset else ["subtract_offset=False"]
        return [self._written, units_formula(self.single, self.units), *without]


@dataclass
class _Encoder:
    """Hold a linear encoder: ``matrix (a - offset) + biases``."""

    matrix: Tensor
    biases: Tensor | None = None
    offset: Tensor | None = None

    def of(self, units: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return private copies of what the units need: a dictionary may have 100,000 others."""
        parts = (self.matrix[list(units)], None if self.biases is None else self.biases[list(units)], self.offset)
        rows, biases, offset = (None if part is None else load_vectors("dictionary", part) for part in parts)
        assert rows is not None
        return rows, biases, offset

    def formula(self, units: Sequence[int]) -> str:
        """Return the numbers of a small matrix, otherwise the shape and the content that the units need."""
        small = self.biases is None and self.offset is None and self.matrix.numel() <= 16
        kept = [part for part in self.of(units) if part is not None]
        return (
            spelled(load_vectors("dictionary", self.matrix))
            if small
            else f"<{tuple(self.matrix.shape)} dictionary {content(*kept)}>"
        )


def _read(dictionary: Any) -> _Encoder | None:
    """Return the linear encoder that was given, None for a module that is something else."""
    if isinstance(dictionary, nn.Linear):
        return _Encoder(dictionary.weight, dictionary.bias)
    if isinstance(dictionary, nn.Module):
        weights = dictionary.state_dict()
        return None if _strangers(weights) else _by_name(weights)
    if isinstance(dictionary, (str, os.PathLike)):
        dictionary = read_file("dictionary", dictionary)
    if not isinstance(dictionary, Mapping):
        matrix = (
            dictionary if isinstance(dictionary, (Tensor, np.ndarray)) else load_vectors("dictionary", dictionary, (2,))
        )
        if matrix.ndim != 2:
            raise ValueError(f"dictionary must be a matrix (units, features), got shape {tuple(matrix.shape)}")
        return _Encoder(torch.as_tensor(matrix))
    strangers = _strangers(dictionary)
    if strangers:
        raise ValueError(
            f"dictionary: these names are not those of a linear encoder: {', '.join(strangers)}; known: "
            f"{', '.join([*ENCODERS, *BIASES, *OFFSETS])}, and one of {' or '.join(ENCODERS)} is needed; give the module itself"
        )
    return _by_name(dictionary)


def _strangers(weights: Mapping[str, Any]) -> list[str]:
    """Return the names that no linear encoder has; all where there is no encoder, or two."""
    unknown = [str(name) for name in weights if name not in (*ENCODERS, *BIASES, *OFFSETS, *AFTER)]
    return (
        unknown if sum(name in weights for name in ENCODERS) == 1 else [str(name) for name in weights] or ["(nothing)"]
    )


def _by_name(weights: Mapping[str, Tensor]) -> _Encoder:
    matrix = weights["W_enc"].T if "W_enc" in weights else weights["encoder.weight"]
    found = [next((weights[name] for name in names if name in weights), None) for names in (BIASES, OFFSETS)]
    lengths = [None if part is None else tuple(part.shape) for part in found]
    if matrix.ndim != 2 or lengths[0] not in (None, matrix.shape[:1]) or lengths[1] not in (None, matrix.shape[1:]):
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        raise ValueError(f"dictionary: these shapes do not make an encoder: {shapes}")
    return _Encoder(matrix, *found)


def _encoded(module: nn.Module, activation: Tensor) -> Tensor:
    """Return (…, K), the first part of what a module gives for (…, F)."""
    run: Callable[[Tensor], Any] = getattr(module, "encode", module)
    result = run(activation)
    first = result[0] if isinstance(result, (tuple, list)) else result
    if not isinstance(first, Tensor) or first.shape[:-1] != activation.shape[:-1]:
        given = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(
            f"dictionary: for activations {tuple(activation.shape)} the module gave {given}, not one row of units for each"
        )
    return first


def _guest_formula(module: nn.Module) -> str:
    weights = [value for _, value in sorted(module.state_dict().items()) if isinstance(value, Tensor)]
    return f"<{type(module).__name__} {content(*weights)}>"
