"""The fused form of an optimizer takes the plain form's steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from featviz_pl.checkpoints import optimizer_description
from featviz_pl.optimizing import made_fast
from featviz_pl.presets import recipe


@pytest.mark.parametrize("maker", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("arguments", [{}, {"betas": (0.5, 0.99), "weight_decay": 0.1}, {"amsgrad": True}], ids=str)
def test_steps_are_those_of_the_plain_form(maker: Any, arguments: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    fast, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [made_fast(maker, [fast], lr=0.1, **arguments), maker([plain], lr=0.1, foreach=False, fused=False, **arguments)]
    for _ in range(20):
        fast.grad = torch.randn(start.shape, dtype=torch.float64, generator=generator)
        plain.grad = fast.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert optimizers[0].defaults["fused"] is True
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-10)


def test_a_form_that_is_asked_for_is_kept() -> None:
    weight = nn.Parameter(torch.zeros(2))
    assert made_fast(torch.optim.Adam, [weight], lr=0.1, foreach=True).defaults["fused"] is None
    assert made_fast(torch.optim.Adam, [weight], lr=0.1, fused=False).defaults["fused"] is False


def test_other_devices_keep_the_choice_of_torch() -> None:
    assert made_fast(torch.optim.Adam, [nn.Parameter(torch.zeros(2, device="meta"))], lr=0.1).defaults["fused"] is None


def test_the_form_is_no_part_of_what_decides_a_picture() -> None:
    made = recipe("featviz").make_optimizer([nn.Parameter(torch.zeros(2))])
    assert made.defaults["fused"] is True
    assert "fused" not in optimizer_description(made)["optimizer_arguments"]
