"""All that take part in a comparison, each in a process of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from benchmarks._contestants import OWN, PEERS
from benchmarks._report import alternate
from benchmarks._worker import Worker, WorkerError

FULL = "32-true"


class Field:
    """Start a process for every library, and leave out, with the reason, those that are missing or fail.

    Args:
        names: of libraries.
        options: of the command line: network, weights, python, accelerator.
    """

    def __init__(self, names: Sequence[str], options: argparse.Namespace) -> None:
        self._stack = ExitStack()
        self.workers: dict[str, Worker] = {}
        self.notes: list[str] = []
        for name in names:
            try:
                worker = self._stack.enter_context(Worker(name, options.python, accelerator=options.accelerator))
                self.notes.append(f"{name}: {worker.about['threads']} threads; {_listed(worker.about['versions'])}")
                worker.ask("network", name=options.network, weights=options.weights)
            except WorkerError as error:
                self.notes.append(f"left out: {error}")
            else:
                self.workers[name] = worker

    @property
    def peers(self) -> list[str]:
        """Names of all but this library."""
        return [name for name in self.workers if name != OWN]

    def entries(self, precisions: Sequence[str]) -> dict[str, tuple[Worker, str]]:
        """Return everybody with each precision that they know, by a name for the table."""
        ours = (
            {f"{OWN}, {precision}": (self.workers[OWN], precision) for precision in precisions}
            if OWN in self.workers
            else {}
        )
        return {**ours, **{name: (self.workers[name], FULL) for name in self.peers}}

    def alternate(self, runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
        """Alternate, and note who fails."""
        failed: dict[str, str] = {}
        results = alternate(runs, rounds, failed)
        self.notes += [f"failed: {reason}" for reason in failed.values()]
        return results

    def try_to_ask(self, name: str, do: str, **arguments: Any) -> Any:
        """Ask, and return None, with a note, where that fails."""
        try:
            return self.workers[name].ask(do, **arguments)
        except WorkerError as error:
            self.notes.append(f"failed: {error}")
            return None

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def add_field_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says who takes part."""
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help="names, or package.module:Class (default: all)")
    parser.add_argument(
        "--precisions", nargs="+", default=[FULL, "bf16-mixed"], help="of this library (default: 32-true bf16-mixed)"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has this library and its peers (default: this one)"
    )
