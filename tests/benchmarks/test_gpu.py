"""The benchmark of GPUs on a CPU: all of it in small, and what it computes from values of a GPU."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import featviz_pl as fv
from benchmarks import _rates, _where, gpu
from benchmarks._networks import QUICK_LAYER, TINY, build
from featviz_pl.engine import Ascent

# Both convolutions, for one picture of 32 x 32 pixels.
OF_TINY = 2 * 15 * 15 * 8 * (3 * 3 * 3) + 2 * 7 * 7 * 64 * (8 * 3 * 3)

pytestmark = pytest.mark.usefixtures("_loud_again")


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run the benchmark in small on the processor, and return the JSON that it writes."""
    file = folder / "out.json"
    monkeypatch.setattr(sys, "argv", [gpu.__file__, "--quick", "--accelerator", "cpu", "--json", str(file), *arguments])
    gpu.main()
    return json.loads(file.read_text())


@pytest.mark.slow
def test_every_batch_has_a_row_and_shares_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.autograd.grad
    report = run(tmp_path, monkeypatch)
    assert torch.autograd.grad is plain
    parts = report["parts"]
    (peak,), rows, where = parts["peak"], parts["steps"], parts["where the time goes, %"]
    jobs = [(row["network"], row["layer"], row["precision"], row["batch"]) for row in rows]
    assert jobs == [(TINY, QUICK_LAYER, "32-true", batch) for batch in (1, 2)]
    for row in rows:
        count, seconds = row["batch"], row["ms per step"] / 1e3
        assert row["pictures' steps per second"] == pytest.approx(count / seconds)
        assert row["features per hour"] == pytest.approx(3600 * count / (256 * seconds))
        share = 100 * row["TFLOP per second"] / peak["TFLOP per second, products"]
        assert row["share of peak, %"] == pytest.approx(share)
        assert row["GFLOP"] * 1e9 > 2 * count * OF_TINY  # and what mixes the colors
        assert row["memory, MiB"] is None
    assert report["notes"] == ["features of 256 steps each"]
    assert [row["of"] for row in where] == ["host", "host"]
    for row in where:
        shares = [row[part] for part in (*_where.PARTS, _where.REST)]
        assert min(shares) > 0
        assert sum(shares) == pytest.approx(100)


def test_a_batch_that_does_not_fit_has_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(job: gpu.Job) -> tuple[float, float | None, dict[str, int]]:
        if job.pictures == 2:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return 0.5, 7.0, {"convolutions": 10, "products": 20}

    monkeypatch.setattr(gpu, "timed", timed)

    def quicken(options: argparse.Namespace, **small: Any) -> None:
        vars(options).update({**small, "batch_sizes": [1, 2, 4]})

    monkeypatch.setattr(gpu, "profiled", lambda _: ({"decode": 1.0, "rest": 1.0}, {"decode": 0.0, "rest": 0.0}))
    monkeypatch.setattr(gpu, "quicken", quicken)
    parts = run(tmp_path, monkeypatch)["parts"]
    rows = [(row["batch"], row["ms per step"], row.get("note")) for row in parts["steps"]]
    assert rows == [(1, 500.0, None), (2, None, "out of memory"), (4, 500.0, None)]
    assert [row["batch"] for row in parts["where the time goes, %"]] == [1, 4]


def operations(size: int, network: torch.nn.Module, layer: str, units: Any) -> dict[str, int]:
    image = fv.images.PixelImage(size, color="none")
    problem = Ascent(image, fv.FrozenNetwork(network), fv.objectives.Channel(layer, units))
    problem.initialize()
    problem.prepare()
    return _rates.operations(problem)


def test_operations_are_counted_by_kind() -> None:
    """The gradient by the input costs what the layer does; weights get none."""
    for count in (1, 3):
        expected = {"convolutions": 2 * count * OF_TINY, "products": 0}
        assert operations(32, build(TINY), QUICK_LAYER, list(range(count))) == expected
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
    assert operations(8, linear, "1", 2) == {"convolutions": 0, "products": 2 * 2 * 192 * 5}


def test_an_out_of_memory_error_ends_the_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: gpu.Batch, on_step: Callable[[int], None]) -> None:
        on_step(gpu.STRETCH)
        assert torch._C._autograd._profiler_enabled()
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu.Batch, "run", fail)
    plain = torch.autograd.grad
    options = argparse.Namespace(size=16, accelerator="cpu", rounds=1)
    with pytest.raises(torch.OutOfMemoryError):
        gpu.profiled(gpu.Job(fv.FrozenNetwork(build(TINY)), QUICK_LAYER, 1, "32-true", options))
    assert torch.autograd.grad is plain
    assert not torch._C._autograd._profiler_enabled()


def test_the_peak_is_that_of_the_best_round(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 8.0, 10.0, 14.0, 20.0, 25.0])  # rounds of 8, 4 and 5 seconds, of 4 products each
    monkeypatch.setattr(_rates, "now", lambda *_: next(times))
    assert _rates.product_rate(torch.device("cpu"), torch.float32, side=10, rounds=3) == 2 * 10**3 / 1.0


@pytest.mark.parametrize(
    ("precision", "device", "tf32_convolutions", "tf32_products", "expected"),
    [
        ("bf16-mixed", "cuda", True, False, ("bfloat16", "bfloat16")),
        ("32-true", "cuda", True, False, ("float32 high", "float32 highest")),  # as torch sets it
        ("32-true", "cuda", True, True, ("float32 high", "float32 high")),
        ("32-true", "cuda", False, False, ("float32 highest", "float32 highest")),
        ("32-true", "cpu", True, False, ("float32", "float32")),
    ],
)
def test_each_kind_of_operation_has_the_peak_of_its_arithmetic(
    precision: str, device: str, tf32_convolutions: bool, tf32_products: bool, expected: Any, monkeypatch: Any
) -> None:
    def product_rate(device: torch.device, dtype: torch.dtype, side: int | None = None) -> str:
        name = str(dtype).removeprefix("torch.")
        reduced = device.type == "cuda" and dtype == torch.float32
        return f"{name} {torch.get_float32_matmul_precision()}" if reduced else name

    monkeypatch.setattr(_rates, "product_rate", product_rate)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32_convolutions)
    before = torch.get_float32_matmul_precision()
    with _rates.tensor_float(tf32_products):
        peaks: Any = _rates.peaks(torch.device(device), precision)
    assert (peaks["convolutions"], peaks["products"]) == expected
    assert torch.get_float32_matmul_precision() == before


def test_what_follows_from_the_time_of_a_step() -> None:
    counts = {"convolutions": 30 * 10**9, "products": 10 * 10**9}
    assert gpu.step_row(0.25, counts, {"convolutions": 1e12, "products": 5e11}, 16, 256, 99.0) == {
        "ms per step": 250.0,
        "pictures' steps per second": 64.0,
        "features per hour": 900.0,
        "GFLOP": 40.0,
        "TFLOP per second": pytest.approx(0.16),
        "share of peak, %": pytest.approx(20.0),  # 30 ms and 20 ms of 250
        "memory, MiB": 99.0,
    }


def event(name: str, start: float, end: float, *kernels: float, device: str = "CPU", marked: bool = False) -> Any:
    """Return an event of the profiler, in microseconds."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        device_type=SimpleNamespace(name=device),
        kernels=[SimpleNamespace(duration=duration) for duration in kernels],
        is_user_annotation=marked,
    )


def test_kernels_belong_to_the_part_in_which_they_were_launched() -> None:
    events = [
        event("aten::copy_", 500, 600, 9000),  # before all ranges
        event("featviz: decode", 1000, 2000, 5000, marked=True),  # the range on the device, which is no kernel
        event("aten::mul", 1100, 1200, 3000, 1000),
        event("featviz: backward", 3000, 7000, marked=True),
        event("MulBackward0", 3500, 3600, 8000),  # from another thread, while Python waits
        event("featviz: backward", 20_000, 28_000, device="CUDA", marked=True),
        event("mul_kernel", 20_000, 28_000, device="CUDA"),
        event("aten::where", 7500, 7600, 2000),  # between two ranges
        event("Optimizer.step#NAdam.step", 8000, 9000, marked=True),
        event("aten::_foreach_mul_", 8100, 8200, 500),
    ]
    host, kernels = _where.times(events)
    used = [{part: value for part, value in times.items() if value} for times in (host, kernels)]
    assert used[0] == {"decode": 1.0, "backward": 4.0, "optimizer": 1.0, "rest": 2.0}
    assert used[1] == {"decode": 4.0, "backward": 8.0, "optimizer": 0.5, "rest": 11.0}


def test_shares_of_the_device_leave_what_is_idle() -> None:
    rows = gpu.whereabouts({"batch": 1}, 20.0, {"decode": 6.0, "rest": 2.0}, {"decode": 4.0, "rest": 1.0})
    assert rows == [
        {"batch": 1, "of": "host", "decode": 75.0, "rest": 25.0},
        {"batch": 1, "of": "device", "decode": 20.0, "rest": 5.0, "idle": 75.0},
    ]
