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
from featviz_pl.numerics.isolated_copy import frozen_copy
from featviz_pl.objectives.activation import LayerTerm
from featviz_pl.objectives.arguments import (
    check_units,
    listed_units,
    load_vectors,
    read_array,
    select_units,
    units_argument,
)
from featviz_pl.objectives.formula import Formula, content_hash, tensor_formula
from featviz_pl.objectives.positions import Tokens
from featviz_pl.objectives.protocol import Observation, Setting

Dictionary = nn.Module | Tensor | Mapping[str, Tensor] | Sequence[Sequence[float]] | str

# Names of weights in SAE Lens, in OpenAI's autoencoders, and in modules with an encoder that is an nn.Linear.
ENCODERS = ("W_enc", "encoder.weight")  # (F, K) and (K, F)
BIASES = ("b_enc", "encoder.bias", "latent_bias")
OFFSETS = ("b_dec", "pre_bias")
DECODERS = ("W_dec", "decoder.weight", "decoder.bias", "threshold", "log_threshold")  # not used


class Latent(LayerTerm):
    """Maximise a unit of a sparse autoencoder, or of any dictionary, on top of a layer.

    ``mean over positions of w_k . (a - b_dec) + b_k``: the encoder before its rectifier, which would pass no gradient
    while the unit is off. Preprocessing of activations before the encoder, such as scaling, is not included.

    Shape:
        activation (N, V, C, H, W), (N, V, T, F) or (N, V, F) -> (N, V)

    Args:
        layer: dotted module name, or ``"output"``.
        dictionary: the weights of an encoder by name, or a file of them that ``torch.save`` wrote: ``W_enc`` (F, K) or
            ``encoder.weight`` (K, F) and, where there are such, ``b_enc``, ``encoder.bias`` or ``latent_bias`` (K,),
            and ``b_dec`` or ``pre_bias`` (F,). Or a matrix (K, F): a tensor, rows of numbers, or a file (.pt, .npy). Or
            a module: the weights of an ``nn.Linear``, or of one with those names, are copied; any other is copied,
            frozen and run, by its ``encode`` where it has one, from (…, F) to (…, K), and its output is the score.
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
        *,
        subtract_offset: bool = True,
        tokens: Tokens = "all",
    ) -> None:
        super().__init__(layer, tokens)
        self.single, self.units = listed_units(units)
        self.picture_count = None if self.single else len(self.units)
        self.subtract_offset = bool(subtract_offset)
        encoder = _read_encoder(dictionary)
        rows = biases = offset = None
        self._encoder: tuple[nn.Module, ...] = ()  # in a tuple, so that it is not registered
        if encoder is None:
            assert isinstance(dictionary, nn.Module)
            self._encoder = (frozen_copy(dictionary),)
            self._formula = _module_formula(self._encoder[0])
        else:
            check_units("the dictionary", self.units, len(encoder.matrix))
            rows, biases, offset = encoder.select(self.units)
            self._formula = encoder.formula(self.units)
        for name, value in (("rows", rows), ("biases", biases), ("offset", offset)):
            self.register_buffer(name, value, persistent=False)

    def check_term(self, setting: Setting) -> None:
        width = self.width(setting)
        if self.rows is not None and self.rows.shape[1] != width:
            raise ValueError(
                f"dictionary: {self.layer!r} has {width} units, and the dictionary is one for {self.rows.shape[1]}; "
                "give the one that was trained on this layer"
            )
        if self._encoder:
            parameter = next(self._encoder[0].parameters(), torch.zeros(()))
            try:
                with torch.no_grad():
                    latents = _encode(self._encoder[0], parameter.new_zeros(1, 1, 1, width))
            except RuntimeError as error:
                raise ValueError(
                    f"dictionary: it does not take the {width} units of {self.layer!r}: {first_line(error)}"
                ) from error
            check_units("the dictionary", self.units, latents.shape[-1])

    def score(self, observation: Observation) -> Tensor:
        activation = at_positions(self.read(observation))
        if self._encoder:
            return select_units(_encode(self._encoder_like(activation), activation).mean(2), self.units)
        assert self.rows is not None
        mean = activation.mean(2)  # a linear encoder of the mean is the mean of the encoder
        if self.offset is not None and self.subtract_offset:
            mean = mean - self.offset.to(mean)
        scores = (mean * self.rows.to(mean)[:, None]).sum(2)
        return scores if self.biases is None else scores + self.biases.to(scores)[:, None]

    def _encoder_like(self, activation: Tensor) -> nn.Module:
        """Return the module with the device and precision of the activation."""
        module = self._encoder[0]
        tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
        if any(tensor.device != activation.device or tensor.dtype != activation.dtype for tensor in tensors):
            module.to(activation)
        return module

    def _apply_to_unregistered(self, fn: Callable[[Tensor], Tensor]) -> None:
        for module in self._encoder:
            module._apply(fn)

    def target_names(self, count: int) -> list[str]:
        return [f"{self.label()}:Latent-{unit}" for unit in (self.units * count if self.single else self.units)]

    def argument(self, name: str) -> Any:
        if name == "dictionary":
            return Formula(self._formula)
        return units_argument(self.single, self.units) if name == "units" else super().argument(name)


@dataclass
class _Encoder:
    """Hold a linear encoder: ``matrix (a - offset) + biases``."""

    matrix: Tensor
    biases: Tensor | None = None
    offset: Tensor | None = None

    def select(self, units: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return private copies of the rows and biases of some units: a dictionary may have 100,000 others."""
        parts = (self.matrix[list(units)], None if self.biases is None else self.biases[list(units)], self.offset)
        rows, biases, offset = (None if part is None else load_vectors("dictionary", part) for part in parts)
        assert rows is not None
        return rows, biases, offset

    def formula(self, units: Sequence[int]) -> str:
        """Return the numbers of a small matrix, otherwise its shape and a hash of the weights of some units."""
        if self.biases is None and self.offset is None and self.matrix.numel() <= 16:
            return tensor_formula(load_vectors("dictionary", self.matrix))
        weights = [part for part in self.select(units) if part is not None]
        return f"<{tuple(self.matrix.shape)} dictionary {content_hash(*weights)}>"


def _read_encoder(dictionary: Any) -> _Encoder | None:
    """Return a linear encoder, None for a module that is something else."""
    if isinstance(dictionary, nn.Linear):
        return _Encoder(dictionary.weight, dictionary.bias)
    if isinstance(dictionary, nn.Module):
        weights = dictionary.state_dict()
        return None if _unknown_names(weights) else _encoder_by_name(weights)
    if isinstance(dictionary, (str, os.PathLike)):
        dictionary = read_array("dictionary", dictionary)
    if isinstance(dictionary, Mapping):
        names = _unknown_names(dictionary)
        if names:
            raise ValueError(
                f"dictionary: these names are not those of a linear encoder: {', '.join(names)}; known: "
                f"{', '.join([*ENCODERS, *BIASES, *OFFSETS])}, and one of {' or '.join(ENCODERS)} is needed; give the "
                "module itself"
            )
        return _encoder_by_name(dictionary)
    if not isinstance(dictionary, (Tensor, np.ndarray)):
        dictionary = load_vectors("dictionary", dictionary, (2,))
    if dictionary.ndim != 2:
        raise ValueError(f"dictionary must be a matrix (units, features), got shape {tuple(dictionary.shape)}")
    return _Encoder(torch.as_tensor(dictionary))


def _unknown_names(weights: Mapping[str, Any]) -> list[str]:
    """Return the names that no linear encoder has; all where there is no encoder, or two."""
    if sum(name in weights for name in ENCODERS) != 1:
        return [str(name) for name in weights] or ["(nothing)"]
    return [str(name) for name in weights if name not in (*ENCODERS, *BIASES, *OFFSETS, *DECODERS)]


def _encoder_by_name(weights: Mapping[str, Tensor]) -> _Encoder:
    matrix = weights["W_enc"].T if "W_enc" in weights else weights["encoder.weight"]
    parts = [next((weights[name] for name in names if name in weights), None) for names in (BIASES, OFFSETS)]
    shapes = [None if part is None else tuple(part.shape) for part in parts]
    if matrix.ndim != 2 or shapes[0] not in (None, matrix.shape[:1]) or shapes[1] not in (None, matrix.shape[1:]):
        named = {name: tuple(value.shape) for name, value in weights.items()}
        raise ValueError(f"dictionary: these shapes do not make an encoder: {named}")
    return _Encoder(matrix, *parts)


def _encode(module: nn.Module, activation: Tensor) -> Tensor:
    """Return (…, K), the first part of a module's output for (…, F)."""
    run: Callable[[Tensor], Any] = getattr(module, "encode", module)
    output = run(activation)
    latents = output[0] if isinstance(output, (tuple, list)) else output
    if not isinstance(latents, Tensor) or latents.shape[:-1] != activation.shape[:-1]:
        shape = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(
            f"dictionary: for activations {tuple(activation.shape)} the module returns {shape}, not one row of units "
            "for each"
        )
    return latents


def _module_formula(module: nn.Module) -> str:
    weights = [value for _, value in sorted(module.state_dict().items()) if isinstance(value, Tensor)]
    return f"<{type(module).__name__} {content_hash(*weights)}>"
