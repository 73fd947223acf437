"""Units of dictionaries: the formula, every form in which an encoder is given, and guests that are left alone."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featviz_pl.objectives import Latent, Observation, Setting, Source

Array = NDArray[np.float64]
FEATURES, LATENTS = 4, 7
_random = np.random.default_rng(0)
W_ENC: Array = _random.normal(size=(FEATURES, LATENTS))
B_ENC: Array = _random.normal(size=LATENTS)
B_DEC: Array = _random.normal(size=FEATURES)
SHAPES: dict[str, tuple[int, ...]] = {"map": (FEATURES, 3, 5), "tokens": (6, FEATURES), "vector": (FEATURES,)}
NAMED = {"W_enc": torch.from_numpy(W_ENC), "b_enc": torch.from_numpy(B_ENC), "b_dec": torch.from_numpy(B_DEC)}


def values(kind: str, pictures: int = 2, views: int = 2) -> Array:
    return np.random.default_rng([pictures, views]).normal(size=(pictures, views, *SHAPES[kind]))


def seen(value: Array | Tensor) -> Observation:
    return Observation(torch.zeros(len(value), 3, 4, 4), {Source("layer"): torch.as_tensor(value)})


def expected(value: Array, units: list[int], biases: Array | None = B_ENC, offset: Array | None = B_DEC) -> Array:
    """Encode position by position, and average."""
    last = np.moveaxis(value, 2, -1) if value.ndim == 5 else value
    lined = last.reshape(*last.shape[:2], -1, FEATURES)
    result = np.zeros(lined.shape[:2])
    for n, v, p in np.ndindex(*lined.shape[:3]):
        a = lined[n, v, p] - (0 if offset is None else offset)
        latent = sum(W_ENC[i, units[n]] * a[i] for i in range(FEATURES)) + (0 if biases is None else biases[units[n]])
        result[n, v] += latent / lined.shape[2]
    return result


class Named(nn.Module):
    """Hold an encoder as SAE Lens does."""

    W_enc: Tensor
    b_enc: Tensor
    b_dec: Tensor

    def __init__(self, weights: dict[str, Tensor], extra: bool = False) -> None:
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        if extra:
            self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def encode(self, x: Tensor) -> Tensor:
        scale = self.scale if hasattr(self, "scale") else 1
        return ((x - self.b_dec) @ self.W_enc + self.b_enc).relu() * scale


class OfTwo(nn.Module):
    """Give latents and something beside, by its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, LATENTS).double()
        self.calls = 0

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        self.calls += 1
        return self.inner(x).tanh(), None


def linear() -> nn.Linear:
    objective = nn.Linear(FEATURES, LATENTS).double()
    with torch.no_grad():
        objective.weight.copy_(torch.from_numpy(W_ENC).T)
        objective.bias.copy_(torch.from_numpy(B_ENC))
    return objective


FORMS: dict[str, tuple[Any, Array | None, Array | None]] = {
    "weights by name": (lambda: NAMED, B_ENC, B_DEC),
    "a whole autoencoder": (
        lambda: NAMED | {"W_dec": torch.zeros(LATENTS, FEATURES), "threshold": torch.ones(LATENTS)},
        B_ENC,
        B_DEC,
    ),
    "no biases": (lambda: {"W_enc": NAMED["W_enc"]}, None, None),
    "names of a linear encoder": (
        lambda: {
            "encoder.weight": NAMED["W_enc"].T,
            "encoder.bias": NAMED["b_enc"],
            "decoder.bias": torch.ones(FEATURES),
        },
        B_ENC,
        None,
    ),
    "names of another library": (
        lambda: {"encoder.weight": NAMED["W_enc"].T, "latent_bias": NAMED["b_enc"], "pre_bias": NAMED["b_dec"]},
        B_ENC,
        B_DEC,
    ),
    "a matrix": (lambda: NAMED["W_enc"].T, None, None),
    "rows of numbers": (lambda: W_ENC.T.astype(np.float32).astype(float).tolist(), None, None),
    "an array": (lambda: W_ENC.T, None, None),
    "a linear layer": (linear, B_ENC, None),
    "a module with these names": (lambda: Named(NAMED), B_ENC, B_DEC),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_encoder_before_its_rectifier(form: str, kind: str) -> None:
    make, biases, offset = FORMS[form]
    value = values(kind)
    tolerance = 1e-6 if form == "rows of numbers" else 1e-11
    for units in ([5, 0], [3, 3]):
        reference = expected(value, units, biases, offset)
        objective = Latent("layer", make(), units if units[0] != units[1] else units[0])
        np.testing.assert_allclose(objective(seen(value)).numpy(), reference, rtol=tolerance, atol=tolerance)
        objective.check(Setting({Source("layer"): SHAPES[kind]}, 2, (3, 8, 8)))


@pytest.mark.parametrize(("pictures", "views"), [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_any_number_of_pictures_and_views(pictures: int, views: int) -> None:
    value, units = values("map", pictures, views), [6, 1, 4][:pictures]
    scores = Latent("layer", NAMED, units)(seen(value))
    np.testing.assert_allclose(scores.numpy(), expected(value, units), rtol=1e-11)
    assert Latent("layer", NAMED, units).count() == pictures
    assert Latent("layer", NAMED, 3).count() is None


def test_the_offset_may_stay() -> None:
    value = values("map")
    objective = Latent("layer", NAMED, 2, subtract_offset=False)
    np.testing.assert_allclose(objective(seen(value)).numpy(), expected(value, [2, 2], B_ENC, None), rtol=1e-11)
    assert repr(objective).endswith(", 2, subtract_offset=False)")


@pytest.mark.parametrize("name", ["dictionary.pt", "matrix.pt", "matrix.npy"])
def test_dictionaries_come_from_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "matrix.npy":
        np.save(path, W_ENC.T)
    else:
        torch.save(NAMED if name == "dictionary.pt" else NAMED["W_enc"].T.contiguous(), path)
    value = values("tokens")
    reference = expected(value, [5, 5]) if name == "dictionary.pt" else expected(value, [5, 5], None, None)
    np.testing.assert_allclose(Latent("layer", str(path), 5)(seen(value)).numpy(), reference, rtol=1e-11)


# Guests


def test_another_module_runs_as_it_is() -> None:
    value, module = values("map"), Named(NAMED, extra=True)
    last = torch.from_numpy(value).movedim(2, -1)
    with torch.no_grad():
        encoded = module.encode(last).flatten(2, 3).mean(2)
    torch.testing.assert_close(
        Latent("layer", module, [5, 0])(seen(value)), torch.stack([encoded[0, :, 5], encoded[1, :, 0]])
    )
    torch.testing.assert_close(Latent("layer", module, 3)(seen(value)), encoded[..., 3])


@pytest.mark.parametrize("make", [linear, OfTwo, lambda: Named(NAMED, extra=True)])
def test_the_module_is_left_alone_and_nothing_of_it_is_registered(make: Any) -> None:
    module = make().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    objective = Latent("layer", module, 2)
    argument = torch.from_numpy(values("map")).requires_grad_(True)
    objective(seen(argument)).sum().backward()
    assert argument.grad is not None
    assert float(argument.grad.abs().max()) > 0
    assert module.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert getattr(module, "calls", 0) == 0
    assert not list(objective.parameters())
    assert not objective.state_dict()
    assert list(objective.modules()) == [objective]


@pytest.mark.parametrize("make", [linear, OfTwo, lambda: NAMED])
def test_copies_and_casts_score_alike(make: Any) -> None:
    objective, value = Latent("layer", make(), 2), values("map")
    reference = objective(seen(value))
    for twin in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective)), copy.deepcopy(objective).half()):
        assert torch.equal(twin(seen(value)), reference)
        assert repr(twin) == repr(objective)
        assert twin.targets(1) == objective.targets(1) == ["layer:Latent-2"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("make", [linear, OfTwo, lambda: Named(NAMED, extra=True)])
def test_dictionaries_follow_the_precision_of_the_activation(make: Any, dtype: torch.dtype) -> None:
    scores = Latent("layer", make(), 2)(seen(torch.from_numpy(values("map")).to(dtype)))
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_only_the_rows_that_are_needed_are_kept() -> None:
    many = torch.zeros(100_000, 4)
    objective = Latent("layer", many, [7, 99_999])
    assert objective.rows is not None
    assert objective.rows.shape == (2, 4)
    assert objective.rows.untyped_storage().nbytes() == 2 * 4 * 4
    assert len(pickle.dumps(objective)) < 20_000


def test_a_dictionary_made_without_gradients_serves_a_run() -> None:
    forms: list[Any] = [linear(), OfTwo(), NAMED]
    with torch.inference_mode():
        objective = [Latent("layer", form, 2) for form in forms]
    for single in objective:
        value = torch.from_numpy(values("map")).requires_grad_(True)
        single(seen(value)).sum().backward()


# How it is written


def test_a_small_matrix_is_written_out_and_others_are_named_by_their_content() -> None:
    assert repr(Latent("a", [[1.0, 2], [0, 0.5]], [1, 0])) == "Latent('a', [[1.0, 2.0], [0.0, 0.5]], [1, 0])"
    first, same, second = (
        repr(Latent("a", value, 3)) for value in (NAMED, Named(NAMED), NAMED | {"b_enc": NAMED["b_enc"] + 1})
    )
    assert first.startswith("Latent('a', <(7, 4) dictionary ")
    assert first == same != second
    assert repr(Latent("a", OfTwo(), 3)).startswith("Latent('a', <OfTwo ")


# What cannot work
