"""Moving tensors and numbers to a device."""

from __future__ import annotations

import torch

from featviz_pl.numerics.device_transfer import numbers_on, to_device

CPU, META = torch.device("cpu"), torch.device("meta")


def test_a_tensor_that_is_there_already_is_not_copied() -> None:
    tensor = torch.ones(2, dtype=torch.float64)
    assert to_device(tensor, CPU) is tensor
    assert to_device(tensor, META).device.type == "meta"


def test_numbers_have_the_precision_asked_for_whatever_the_program_s_default() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert numbers_on(CPU, [0.1], torch.float32).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert numbers_on(CPU, (3, 5)).dtype == torch.int64
