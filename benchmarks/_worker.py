"""A process that runs one library, and the side that asks it: lines of JSON there and back.

    python -m benchmarks._worker torch-lucent cpu

Each line on stdin is ``{"do": …, arguments}``, each answer one line on stdout; whatever the library prints goes to
stderr. An answer is ``{"result": …}``, ``{"error": "Class: message"}`` or ``{"missing": "distribution"}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks._report import TurnError, installed, median_step

ROOT = Path(__file__).resolve().parents[1]


class WorkerError(TurnError):
    """Say that a library cannot do what it was asked for, with its own words."""


class MissingError(WorkerError):
    """Say that a library is not installed."""


class Worker:
    """Hold a process that runs one library.

    Args:
        name: of the library, see `_contestants`.
        python: interpreter that has it.
        threads: of torch; its own choice unless given.
        accelerator: where its networks run; with ``"cpu"`` it sees no NVIDIA GPU, which some libraries would use
            unasked.

    Raises:
        MissingError: when it is not installed.
        WorkerError: when it cannot be imported.
    """

    def __init__(
        self, name: str, python: str = sys.executable, threads: int | None = None, accelerator: str = "cpu"
    ) -> None:
        self.name = name
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        environment = {
            **os.environ,
            "TQDM_DISABLE": "1",
            **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
        }
        environment |= {"CUDA_VISIBLE_DEVICES": ""} if accelerator == "cpu" else {}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(  # noqa: S603
            [python, "-m", "benchmarks._worker", name, accelerator],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            text=True,
            env=environment,
        )
        try:
            self.about: dict[str, Any] = self.ask("load")
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send one request and return its result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.name}: the process ended with {self._process.wait()}: {self._last_words()}")
        answer = json.loads(line)
        if "missing" in answer:
            raise MissingError(f"{self.name}: {answer['missing']} is not installed; pip install 'featviz_pl[bench]'")
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def _last_words(self) -> str:
        self._output.seek(0)
        lines = [line.strip() for line in self._output.read().splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # which ends its loop
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._output.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Desk:
    """Answer requests in the process of one library."""

    def __init__(self, name: str, accelerator: str = "cpu") -> None:
        self.name, self.accelerator = name, accelerator

    def load(self) -> dict[str, Any]:
        """Import the library; say which versions there are, how many threads, and how much memory the imports take."""
        import torch
        import torchvision  # noqa: F401  # the network's, whose memory is not the library's

        from benchmarks._contestants import contestant
        from benchmarks._device import device_of
        from benchmarks._memory import reset_peak, resident

        self.contestant, self.device = contestant(self.name), device_of(self.accelerator)
        self.contestant.accelerator = self.accelerator
        for package in self.contestant.packages:
            if installed(package) is None:
                raise DistributionError(package)
        self.contestant.load()
        self.imported = resident()
        reset_peak()
        versions = {package: installed(package) for package in (*self.contestant.packages, "torch", "kornia")}
        return {
            "threads": torch.get_num_threads(),
            "versions": {name: version for name, version in versions.items() if version},
        }

    def network(self, name: str, weights: str) -> None:
        """Build the network, where it is to run."""
        from benchmarks._networks import build

        self.contestant.prepare(build(name, weights).to(self.device))

    def render(self, file: str | None = None, **job: Any) -> dict[str, Any]:
        """Render one picture; return the seconds of the whole call and the median milliseconds of a step."""
        from benchmarks._contestants import Job

        began = time.perf_counter()
        picture, times = self.contestant.render(Job(**job))
        seconds = time.perf_counter() - began
        if file is not None:
            import numpy as np

            np.save(file, picture.numpy())
        return {"seconds": seconds, "ms": median_step(times)}

    def loop(self, units: Sequence[int], **job: Any) -> float:
        """Render many units one after another; return the seconds."""
        from benchmarks._contestants import Job

        began = time.perf_counter()
        for unit in units:
            self.contestant.render(Job(**{**job, "unit": unit}))
        return time.perf_counter() - began

    def sweep(self, units: list[int], batch_size: int | str, **job: Any) -> float:
        """Render many units in batches; return the seconds."""
        from benchmarks._contestants import Featviz, Job

        assert isinstance(self.contestant, Featviz)
        began = time.perf_counter()
        self.contestant.sweep(Job(unit=0, **job), units, batch_size)
        return time.perf_counter() - began

    def scores(self, files: Sequence[str], target: str) -> list[float]:
        """Score pictures of one target under held-out views."""
        import numpy as np
        import torch

        from benchmarks._contestants import Featviz

        assert isinstance(self.contestant, Featviz)
        return self.contestant.scores(torch.stack([torch.from_numpy(np.load(file)) for file in files]), target)

    def memory(self) -> dict[str, float]:
        """Return the memory above that of the imports, on a GPU that of its tensors: in use now, and the most since the last question."""
        from benchmarks._device import allocated, most_allocated, reset_most_allocated
        from benchmarks._memory import peak, reset_peak, resident

        used, most = allocated(self.device), most_allocated(self.device)
        if used is not None and most is not None:
            reset_most_allocated(self.device)
            return {"now": used, "peak": most}
        usage = {"now": resident() - self.imported, "peak": peak() - self.imported}
        reset_peak()
        return usage

    def alive(self) -> dict[str, int]:
        """Count what is alive: modules, their hooks, tensors."""
        import gc

        import torch

        gc.collect()
        objects = gc.get_objects()
        modules = [thing for thing in objects if issubclass(type(thing), torch.nn.Module)]
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
        return {
            "modules": len(modules),
            "hooks": hooks,
            "tensors": sum(issubclass(type(thing), torch.Tensor) for thing in objects),
        }


class DistributionError(Exception):
    """Name a distribution that is not installed."""


def serve(name: str, accelerator: str = "cpu") -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    desk = Desk(name, accelerator)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            do: Callable[..., Any] = getattr(desk, request.pop("do"))
            answer = {"result": do(**request)}
        except DistributionError as missing:
            answer = {"missing": str(missing)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
