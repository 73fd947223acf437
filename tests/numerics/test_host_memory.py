"""The commands keep the memory that a step frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Blocks as large as activations, touched and freed, in threes as forwards and backwards do.
STEPS = """
import resource
import torch
from featviz_pl.numerics.host_memory import keep_freed_memory
keep_freed_memory()
def step():
    blocks = [torch.ones(3 * 2**20) for _ in range(3)]
for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


pytestmark = pytest.mark.slow


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_steps_after_the_first_ask_the_system_for_nothing() -> None:
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1_000  # of the 184,320 pages that 20 steps touch
