"""Digests that tell contents apart, in provenance, manifests and formulas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def digest(parts: Iterable[bytes | str | Tensor], digits: int = 16) -> str:
    """Return the first hexadecimal digits of the SHA-256 over texts (UTF-8), bytes and the bytes of tensors, in order.

    Args:
        parts: what is hashed; only one tensor at a time is copied to the CPU.
        digits: at most 64.

    Example:
        >>> digest(["weight", torch.zeros(2)]), digest([b"weight"], digits=8)
        ('3688caeed5ef2f3f', '0844df8f')
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        sha.update(part.encode() if isinstance(part, str) else part)
    return sha.hexdigest()[:digits]
