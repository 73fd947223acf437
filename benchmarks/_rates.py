"""Floating point operations: those of a step, and how many a device manages in a second at its best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._device import now
from featviz_pl.engine import Ascent
from featviz_pl.engine.ascent import REDIRECTED_STEPS, trained_parameters

CONVOLUTIONS, PRODUCTS = "convolutions", "products"  # what torch counts; each may use TF32 or not
SIDES = {"cpu": 1024}  # of the matrices whose product is timed; 8,192 on anything faster
IN_A_ROW = 4  # products between two moments at which the device is waited for
Counts = dict[str, int]


def operations(ascent: Ascent, step: int = REDIRECTED_STEPS + 1) -> Counts:
    """Count the operations of one forward and backward of an ascent, a multiplication and an addition being two.

    `FlopCounterMode` goes by the shapes of convolutions and matrix products, attention among them where it knows the
    kernel, whatever algorithm runs them: one that needs fewer, such as Winograd's, comes nearer to the peak than it is.
    Fourier transforms, resampling, and what is done number by number count as nothing.

    Args:
        ascent: initialised and prepared.
        step: behind the first 16, which may cost a second pass.
    """
    with torch.inference_mode(False), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        torch.autograd.grad(ascent.step(step, step + 2).loss, trained_parameters(ascent.image), allow_unused=True)
    totals = {CONVOLUTIONS: 0, PRODUCTS: 0}
    for operation, count in counter.get_flop_counts().get("Global", {}).items():
        totals[CONVOLUTIONS if "convolution" in str(operation) or "conv2d" in str(operation) else PRODUCTS] += count
    return totals


def product_rate(device: torch.device, dtype: torch.dtype, side: int | None = None, rounds: int = 10) -> float:
    """Return the operations of a second in products of two square matrices: the best of some rounds, because it stands for a limit."""
    side = side or SIDES.get(device.type, 8192)
    left, right = (
        torch.randn(side, side, generator=torch.Generator().manual_seed(seed)).to(device, dtype) for seed in (0, 1)
    )
    result = left @ right  # the first one also looks for a kernel
    least = float("inf")
    for _ in range(rounds):
        began = now(device)
        for _ in range(IN_A_ROW):
            torch.mm(left, right, out=result)
        least = min(least, (now(device) - began) / IN_A_ROW)
    return 2 * side**3 / least


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """Let products of float32 matrices on an NVIDIA GPU use TF32, or not, and leave the switch as it was."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def peaks(device: torch.device, precision: str, side: int | None = None) -> dict[str, float]:
    """Return the operations of a second that products reach in the arithmetic that each kind of operation uses in a precision.

    In float32 torch lets convolutions use TF32 and products not, unless somebody has switched that: two peaks. On a
    device without TF32, and in bfloat16, both are the same.
    """
    if precision == "bf16-mixed":
        return dict.fromkeys((CONVOLUTIONS, PRODUCTS), product_rate(device, torch.bfloat16, side))
    if device.type != "cuda":
        return dict.fromkeys((CONVOLUTIONS, PRODUCTS), product_rate(device, torch.float32, side))
    allowed = {CONVOLUTIONS: torch.backends.cudnn.allow_tf32, PRODUCTS: torch.backends.cuda.matmul.allow_tf32}
    rates: dict[bool, float] = {}
    for switch in set(allowed.values()):
        with tensor_float(switch):
            rates[switch] = product_rate(device, torch.float32, side)
    return {kind: rates[switch] for kind, switch in allowed.items()}


def share_of_peak(counts: Mapping[str, int], rates: Mapping[str, float], seconds: float) -> float:
    """Return how much of the time of a step its operations would take at the peak.

    >>> share_of_peak({"convolutions": 8, "products": 2}, {"convolutions": 4.0, "products": 1.0}, 16.0)
    0.25
    """
    return sum(count / rates[kind] for kind, count in counts.items()) / seconds
