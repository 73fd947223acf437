"""One pass tells what `torch.isfinite` tells."""

from __future__ import annotations

import pytest
import torch

from featviz_pl.numerics.finite import is_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize(
    "values",
    [[], [0.0], [1.0, -2.0], [NAN], [1.0, NAN, 2.0], [INF, 1.0], [1.0, -INF], [NAN, INF], [3e38, 3e38]],
    ids=str,
)
def test_every_value_counts(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values).to(dtype)
    assert is_finite(tensor) == all(bool(torch.isfinite(value)) for value in tensor)
    assert is_finite(tensor.view(-1, 1)) == is_finite(tensor)


def test_a_number_that_needs_a_gradient_is_looked_at() -> None:
    assert is_finite(torch.tensor(1.0, requires_grad=True))
