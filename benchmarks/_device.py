"""The device that a benchmark runs on: which one, the time when it has done its work, and the memory that it has needed."""

from __future__ import annotations

import argparse
import time

import torch

ACCELERATORS = ("cpu", "gpu", "auto")


def add_accelerator_argument(
    parser: argparse.ArgumentParser, default: str | None = "cpu", otherwise: str = "cpu"
) -> None:
    """Add what says where the networks run; where there is no default, `otherwise` says what holds."""
    text = f"one of {', '.join(ACCELERATORS)} (default: {otherwise if default is None else default})"
    parser.add_argument("--accelerator", type=accelerator, default=default, help=text)


def accelerator(text: str) -> str:
    """Return the name of an accelerator, or say, before anything runs, that there is none."""
    try:
        device_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def device_of(name: str) -> torch.device:
    """Return the first device of an accelerator; ``"auto"`` is a GPU where there is one.

    Raises:
        ValueError: when there is no such accelerator, or a GPU is asked for and there is none.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    if name not in ACCELERATORS:
        raise ValueError(f"{name!r} is none of {', '.join(ACCELERATORS)}")
    if name == "cpu":
        return torch.device("cpu")
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None and name == "gpu":
        raise ValueError("torch finds no GPU on this machine; cpu measures its processor")
    return torch.device("cpu") if device is None else torch.device(device.type, 0)


def now(device: torch.device) -> float:
    """Return the time when a device has done all that it was asked for: a GPU works on while Python runs ahead."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def allocated(device: torch.device) -> float | None:
    """Return the MiB that tensors take on a device now; None for a CPU, and where torch does not say."""
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else None


def most_allocated(device: torch.device) -> float | None:
    """Return the most MiB that tensors took on a device since the last reset; None where torch does not say."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def reset_most_allocated(device: torch.device) -> None:
    """Give back what nobody uses, and begin anew to look for the most in use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def described(device: torch.device) -> str:
    """Name a device, such as a GPU's model and memory."""
    if device.type != "cuda":
        return device.type
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
