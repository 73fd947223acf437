"""Libraries that stand in for peers: one that works, and others that fail in ways of their own."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from benchmarks._contestants import Contestant, Job, Peer


class Steady(Peer):
    """Pass through the network in every step, and hand out a picture of noise."""

    def picture(self, job: Job) -> Tensor:
        print("what a library prints must not stand between the answers")
        for _ in range(job.steps):
            self.network(torch.zeros(1, 3, job.size, job.size))
        return torch.rand(3, job.size, job.size)


class NotInstalled(Contestant):
    packages = ("a-library-that-nobody-has",)


class FailsToRender(Contestant):
    def render(self, job: Job) -> tuple[Tensor, list[float]]:
        raise RuntimeError("no picture\ntoday")


class Dies(Contestant):
    def render(self, job: Job) -> tuple[Tensor, list[float]]:
        os.write(2, b"out of luck\n")
        os._exit(7)
