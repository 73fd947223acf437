"""The relaxed gradient of max pooling, by brute force over windows in numpy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from guests import condition, require_same
from numpy.typing import NDArray
from runs import fit
from torch import Tensor, nn
from torch.nn import functional

from featviz_pl.images import FourierImage
from featviz_pl.networks import load_network, redirected_relu, relaxed_max_pool
from featviz_pl.objectives import Channel
from featviz_pl.training import FeatureVisualization

Array = NDArray[np.float64]
# The positions of one window along one axis.
Windows = list[list[int]]


def windows(
    length: int, kernel: int, stride: int, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
) -> Windows:
    """Return the positions inside the picture of every window along one axis."""
    found = []
    start = -padding
    reach = (kernel - 1) * dilation
    # A last window that leaves the picture counts in ceil mode, if it starts in the picture or in the padding before
    # it.
    while start + reach < length + padding or (
        ceil_mode and start < length and start + reach < length + padding + stride - 1
    ):
        found.append([i for i in range(start, start + reach + 1, dilation) if 0 <= i < length])
        start += stride
    return found


def adaptive(length: int, count: int) -> Windows:
    """Return the positions of adaptive windows: from the floor of i L / n to the ceiling of (i + 1) L / n."""
    return [list(range(i * length // count, -(-(i + 1) * length // count))) for i in range(count)]


def brute_force(x: Array, axes: list[Windows], gradient: Array) -> Array:
    """Return the gradient of sum(gradient * avg(x^2) / (0.01 + avg(|x|))), window by window, for x (N, C, ...)."""
    result = np.zeros_like(x)
    for sample in np.ndindex(*x.shape[:2]):
        for place in np.ndindex(*gradient.shape[2:]):
            inside = list(product(*[axis[i] for axis, i in zip(axes, place)]))
            values = np.array([x[sample][p] for p in inside])
            n, square, level = len(values), (values**2).mean(), 0.01 + np.abs(values).mean()
            for p, value in zip(inside, values):
                result[sample][p] += gradient[sample][place] * (
                    2 * value / n / level - square * np.sign(value) / n / level**2
                )
    return result


def case(name: str, pool: Callable[[Tensor], Any], size: tuple[int, ...], axes: list[Windows]) -> Any:
    return pytest.param(pool, size, axes, id=name)


CASES = [
    case("nn.MaxPool2d", nn.MaxPool2d(2), (6, 8), [windows(6, 2, 2), windows(8, 2, 2)]),
    case("overlapping", nn.MaxPool2d(3, 2), (7, 9), [windows(7, 3, 2), windows(9, 3, 2)]),
    case("padded", nn.MaxPool2d(3, 2, 1), (6, 7), [windows(6, 3, 2, 1), windows(7, 3, 2, 1)]),
    case(
        "in ceil mode",
        nn.MaxPool2d(3, 2, ceil_mode=True),
        (6, 7),
        [windows(6, 3, 2, ceil_mode=True), windows(7, 3, 2, ceil_mode=True)],
    ),
    case(
        "padded in ceil mode",
        nn.MaxPool2d(2, 2, 1, ceil_mode=True),
        (5, 6),
        [windows(5, 2, 2, 1, ceil_mode=True), windows(6, 2, 2, 1, ceil_mode=True)],
    ),
    case("of two sizes", nn.MaxPool2d((3, 2), (1, 2), (1, 0)), (5, 6), [windows(5, 3, 1, 1), windows(6, 2, 2)]),
    case("dilated", nn.MaxPool2d(3, 2, 1, dilation=2), (9, 8), [windows(9, 3, 2, 1, 2), windows(8, 3, 2, 1, 2)]),
    case(
        "dilated in ceil mode",
        nn.MaxPool2d(2, (2, 3), 1, dilation=(1, 3), ceil_mode=True),
        (6, 9),
        [windows(6, 2, 2, 1, 1, True), windows(9, 2, 3, 1, 3, True)],
    ),
    case("functional", lambda x: functional.max_pool2d(x, 2, stride=1), (4, 5), [windows(4, 2, 1), windows(5, 2, 1)]),
    case(
        "by keyword",
        lambda x: functional.max_pool2d(kernel_size=2, input=x),
        (4, 4),
        [windows(4, 2, 2), windows(4, 2, 2)],
    ),
    case("torch.max_pool2d", lambda x: torch.max_pool2d(x, [2], []), (4, 4), [windows(4, 2, 2), windows(4, 2, 2)]),
    case(
        "with indices",
        lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
        (4, 4),
        [windows(4, 2, 2), windows(4, 2, 2)],
    ),
    case("nn.MaxPool1d", nn.MaxPool1d(3, 2, 1), (8,), [windows(8, 3, 2, 1)]),
    case("dilated over one axis", nn.MaxPool1d(3, 1, 1, dilation=2), (8,), [windows(8, 3, 1, 1, 2)]),
    case("nn.MaxPool3d", nn.MaxPool3d(2, 1), (3, 4, 3), [windows(3, 2, 1), windows(4, 2, 1), windows(3, 2, 1)]),
    case("nn.AdaptiveMaxPool1d", nn.AdaptiveMaxPool1d(3), (8,), [adaptive(8, 3)]),
    case("nn.AdaptiveMaxPool2d", nn.AdaptiveMaxPool2d((3, 2)), (7, 5), [adaptive(7, 3), adaptive(5, 2)]),
    case("adaptive, one axis kept", nn.AdaptiveMaxPool2d((None, 1)), (3, 5), [adaptive(3, 3), adaptive(5, 1)]),
    case("nn.AdaptiveMaxPool3d", nn.AdaptiveMaxPool3d(2), (3, 4, 3), [adaptive(3, 2), adaptive(4, 2), adaptive(3, 2)]),
    case(
        "adaptive with indices", nn.AdaptiveMaxPool2d(2, return_indices=True), (4, 5), [adaptive(4, 2), adaptive(5, 2)]
    ),
]


def drawn(*shape: int) -> Tensor:
    """Draw values of both signs, some of them 0, as after a rectifier."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.where(x < -0.8, 0.0, x)


def value(result: Any) -> Tensor:
    pooled: Tensor = result[0] if isinstance(result, tuple) else result
    return pooled


@pytest.mark.parametrize(("pool", "size", "axes"), CASES)
def test_the_gradient_is_that_of_the_smooth_pooling(
    pool: Callable[[Tensor], Any], size: tuple[int, ...], axes: list[Windows]
) -> None:
    x = drawn(2, 3, *size).requires_grad_(True)
    with relaxed_max_pool():
        pooled = value(pool(x))
    upstream = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(pooled, x, upstream)
    expected = brute_force(x.detach().numpy(), axes, upstream.numpy())
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("pool", "size", "axes"), CASES)
def test_the_forward_pass_is_unchanged(
    pool: Callable[[Tensor], Any], size: tuple[int, ...], axes: list[Windows]
) -> None:
    x = drawn(2, 3, *size).requires_grad_(True)
    outside = pool(x)
    with relaxed_max_pool():
        inside = pool(x)
    assert torch.equal(value(inside), value(outside))
    if isinstance(outside, tuple):
        assert torch.equal(inside[1], outside[1])
        assert not inside[1].requires_grad
    values = x.detach().numpy()[1, 2]
    assert value(inside)[1, 2].flatten().tolist() == [values[np.ix_(*place)].max() for place in product(*axes)]


def test_outside_the_context_gradients_are_ordinary() -> None:
    with pytest.raises(KeyError), relaxed_max_pool():
        raise KeyError
    x = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    functional.max_pool1d(x, 2).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[0.0, 1.0]]]


def test_one_picture_without_a_batch_axis_is_pooled() -> None:
    x = drawn(3, 4, 4).requires_grad_(True)
    with relaxed_max_pool():
        pooled = functional.max_pool2d(x, 2)
    (gradient,) = torch.autograd.grad(pooled.sum(), x)
    expected = brute_force(x.detach().numpy()[None], [windows(4, 2, 2)] * 2, np.ones((1, 3, 2, 2)))[0]
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-10)


def test_a_border_of_minus_infinity_is_padding() -> None:
    def gradient(pool: Callable[[Tensor], Tensor]) -> Tensor:
        x = drawn(1, 2, 5, 5).requires_grad_(True)
        with relaxed_max_pool():
            pooled = pool(x)
        return torch.autograd.grad(pooled.sum(), x)[0]

    around = gradient(lambda x: functional.max_pool2d(functional.pad(x, [1, 1, 1, 1], value=-torch.inf), 3, 2))
    torch.testing.assert_close(around, gradient(lambda x: functional.max_pool2d(x, 3, 2, 1)))
    wide = gradient(
        lambda x: functional.max_pool2d(functional.pad(x, [3, 3, 3, 3], value=-torch.inf), 3, 3)
    )  # whole windows of it
    assert bool(wide.isfinite().all())


def test_reduced_precision_is_relaxed_in_full_and_keeps_its_type() -> None:
    x = (drawn(1, 1, 4, 4) * 500).half().requires_grad_(True)  # squares do not fit into half precision
    with relaxed_max_pool():
        pooled = functional.max_pool2d(x, 2)
    (gradient,) = torch.autograd.grad(pooled.sum(), x)
    expected = brute_force(x.detach().double().numpy(), [windows(4, 2, 2)] * 2, np.ones((1, 1, 2, 2)))
    assert gradient.dtype == torch.float16
    np.testing.assert_allclose(gradient.double().numpy(), expected, rtol=2e-3, atol=1e-3)


def test_the_relaxed_gradient_has_a_gradient() -> None:
    x = (drawn(1, 1, 4, 4).abs() + 0.1).requires_grad_(True)

    def first(x: Tensor) -> Tensor:
        with relaxed_max_pool():
            pooled = functional.max_pool2d(x, 2)
        return torch.autograd.grad(pooled.sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(first, (x,))


@pytest.mark.parametrize(
    "order",
    [[relaxed_max_pool, redirected_relu], [redirected_relu, relaxed_max_pool]],
    ids=["relaxed outside", "redirected outside"],
)
def test_both_rules_hold_when_they_are_nested(order: list[Any]) -> None:
    x = torch.tensor([[[-1.0, -3.0, -2.0, -2.0]]], dtype=torch.float64, requires_grad=True)
    with order[0](), order[1]():
        before = functional.max_pool1d(x, 2)  # negative
        after = torch.relu(before)  # off
    assert before.tolist() == [[[-1.0, -2.0]]]
    (gradient,) = torch.autograd.grad(after, x, torch.tensor([[[-3.0, 5.0]]], dtype=torch.float64))
    # The rectifier passes -3, which would turn it on, and not 5; the pool hands -3 to its whole window.
    expected = brute_force(x.detach().numpy(), [windows(4, 2, 2)], np.array([[[-3.0, 0.0]]]))
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12)
    with order[0](), order[1](), order[0]():
        again = torch.relu(functional.max_pool1d(x, 2))
    (repeated,) = torch.autograd.grad(again, x, torch.tensor([[[-3.0, 5.0]]], dtype=torch.float64))
    assert torch.equal(repeated, gradient)


class Smooth(nn.Module):
    """Stand in for a max pool by the maximum without gradient plus the smooth pooling without value: an independent way."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        patches = functional.unfold(x, 3, stride=2).view(*x.shape[:2], 9, -1)
        smooth = patches.square().mean(2) / (0.01 + patches.abs().mean(2))
        best: Tensor = self.pool(x).detach()
        return best + (smooth - smooth.detach()).view_as(best)


def test_a_whole_network_passes_the_gradient_of_its_smooth_counterpart() -> None:
    network: Any = load_network("squeezenet1_0", weights="none").module.double().eval().requires_grad_(False)
    features = network.features
    smooth = nn.Sequential(*[Smooth(part) if isinstance(part, nn.MaxPool2d) else part for part in features])
    assert sum(isinstance(part, Smooth) for part in smooth) == 3
    x = torch.rand(1, 3, 35, 35, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    with relaxed_max_pool():
        relaxed = features(x)
    # With 35 pixels all windows lie inside, so unfolding finds the same ones.
    torch.testing.assert_close(smooth(x), relaxed)
    (expected,) = torch.autograd.grad(smooth(x)[:, 5].sum(), x)
    (found,) = torch.autograd.grad(relaxed[:, 5].sum(), x)
    (ordinary,) = torch.autograd.grad(features(x)[:, 5].sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)
    assert float((found - ordinary).abs().max()) > 0.1 * float(ordinary.abs().max())


def test_a_run_inside_the_context_is_relaxed_and_leaves_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 2, 1))
    before = condition(network)

    def run(relaxed: bool) -> tuple[Tensor, float]:
        model = FeatureVisualization(network, Channel("3", 1), image=FourierImage(15, deviation=0.5))
        if relaxed:
            with relaxed_max_pool():
                fit(model, 1)
        else:
            fit(model, 1)
        assert model.last is not None
        (weight,) = model.image.parameters()
        assert weight.grad is not None
        return weight.grad.clone(), float(model.last.loss)

    (ordinary, loss), (relaxed, same_loss) = run(False), run(True)
    assert loss == same_loss
    assert float((relaxed - ordinary).abs().max()) > 0.01 * float(ordinary.abs().max())
    assert torch.equal(run(False)[0], ordinary)
    require_same(before, condition(network))
