"""A training with a FeatureMonitor ends as it ends without, bit for bit."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import monitored
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from monitored import ACCUMULATED, HOOKS, KINDS, PRECISIONS, RANKS, Classifier, differences, job_name, train

Case = tuple[str, int, str, int, str]

CASES: list[Case] = [
    ("train_epoch_end", 1, "32-true", 1, "norm"),
    ("train_epoch_end", 3, "bf16-mixed", 2, "dropout"),
    ("train_epoch_end", 1, "bf16-mixed", 2, "compiled"),
    ("validation_end", 3, "bf16-mixed", 1, "norm"),
    ("validation_end", 1, "32-true", 2, "dropout"),
    ("validation_end", 3, "32-true", 1, "compiled"),
    ("steps", 3, "32-true", 2, "norm"),
    ("steps", 1, "bf16-mixed", 1, "dropout"),
    ("steps", 1, "32-true", 1, "compiled"),
]
TABLE = (HOOKS, ACCUMULATED, PRECISIONS, RANKS, KINDS)
ALL: list[Case] = list(itertools.product(*TABLE))
OTHERS = [case for case in ALL if case not in CASES]
EXTRA = ["train_epoch_end/1/32-true/broken-warn", "train_epoch_end/1/32-true/broken-raise"]


def jobs(cases: Sequence[Case]) -> list[str]:
    """Return the jobs of two processes, with the trainings without a monitor that they are compared with."""
    both = [case for case in cases if case[3] == 2]
    wanted = [(hook, case[1], case[2], case[4]) for case in both for hook in ("none", case[0])]
    return ["/".join(map(str, job)) for job in dict.fromkeys(wanted)]


@pytest.fixture(scope="module")
def over_two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run each list of jobs once, in a program of its own."""

    @functools.cache
    def run(*wanted: str) -> Path:
        folder = tmp_path_factory.mktemp("ranks")
        command = [sys.executable, monitored.__file__, str(folder), *wanted]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
        assert done.returncode == 0, done.stderr
        (folder / "said.txt").write_text(done.stdout + done.stderr)
        return folder

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    @functools.cache
    def run(hook: str, accumulate: int, precision: str, kind: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("alone")
        seen, watch = train(hook, accumulate, precision, kind, folder)
        return {**seen, "images": {} if watch is None else watch.images}

    return run


def without_images(seen: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in seen.items() if name not in ("images", "error")}


def require_untouched(case: Case, over_two: Any, alone: Any, cases: Sequence[Case]) -> None:
    hook, accumulate, precision, ranks, kind = case
    for rank in range(ranks):
        if ranks == 1:
            plain, watched = alone("none", accumulate, precision, kind), alone(hook, accumulate, precision, kind)
        else:
            folder = over_two(*jobs(cases), *(EXTRA if cases is CASES else []))
            plain, watched = (
                torch.load(folder / f"{job_name(one, accumulate, precision, kind)}-{rank}.pt", weights_only=True)
                for one in ("none", hook)
            )
        assert plain["losses"], "nothing was trained"
        assert differences(without_images(plain), without_images(watched)) == []
        assert len(watched["images"]) == 5
        for image in watched["images"].values():
            assert float(image.std()) > 0.001


def test_the_cases_hold_every_pair_of_the_table() -> None:
    assert set(CASES) <= set(ALL)
    assert len(CASES) + len(OTHERS) == 72
    for first, second in itertools.combinations(range(len(TABLE)), 2):
        pairs = {(case[first], case[second]) for case in CASES}
        assert pairs == set(itertools.product(TABLE[first], TABLE[second]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_training_is_untouched(case: Case, over_two: Any, alone: Any) -> None:
    require_untouched(case, over_two, alone, CASES)


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_the_training_is_untouched_in_all_other_cases_of_the_table(case: Case, over_two: Any, alone: Any) -> None:
    require_untouched(case, over_two, alone, OTHERS)


@pytest.mark.parametrize("what", ["draw", "backward", "modes", "statistics"])
def test_the_comparison_sees_a_careless_callback(what: str, alone: Any, tmp_path: Path) -> None:
    class Careless(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            assert isinstance(pl_module, Classifier)
            if what == "draw":
                torch.rand(1)
            elif what == "modes":
                pl_module.eval()
            elif what == "statistics":
                pl_module.net(torch.full((2, 3, 12, 12), 0.5))
            else:
                pl_module.net(torch.full((2, 3, 12, 12), 0.5)).sum().backward()

    seen, _ = train("none", 3, "32-true", "norm", tmp_path, callbacks=[Careless()])
    assert differences(without_images(alone("none", 3, "32-true", "norm")), seen) != []


def test_the_training_is_untouched_beside_an_average_of_its_weights(tmp_path: Path) -> None:
    plain, watched = (
        train(hook, folder=tmp_path / hook, callbacks=[EMAWeightAveraging(decay=0.5)])[0]
        for hook in ("none", "validation_end")
    )
    assert differences(plain, watched) == []


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # the compiler looks at all there is
@pytest.mark.parametrize("how", ["module", "in place", "forward"])
def test_the_training_is_untouched_however_it_was_compiled(how: str, tmp_path: Path) -> None:
    def run(hook: str) -> tuple[dict[str, Any], Any]:
        module: Any = Classifier("norm")
        if how == "in place":
            module.net.compile(backend="aot_eager")
        elif how == "forward":
            module.net.forward = torch.compile(module.net.forward, backend="aot_eager")
        else:
            module = torch.compile(module, backend="aot_eager")
        return train(hook, folder=tmp_path / hook, module=module)

    (plain, _), (watched, watch) = run("none"), run("train_epoch_end")
    assert differences(plain, watched) == []
    assert watch is not None
    assert len(watch.images) == 5


def test_a_training_with_synchronised_batch_norm_is_untouched(tmp_path: Path) -> None:
    plain, watched = (train(hook, kind="sync", folder=tmp_path / hook)[0] for hook in ("none", "steps"))
    assert differences(plain, watched) == []


def test_two_processes_divide_the_pictures_and_all_hold_them(over_two: Any) -> None:
    folder = over_two(*jobs(CASES), *EXTRA)
    name = job_name("steps", 3, "32-true", "norm")
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=True)["images"] for rank in range(2))
    assert list(first) == ["net.4:0", "net.4:1", "net.4:2", "net.1:3", "net.9:1"]
    assert differences(first, second) == []
    assert len(list((folder / name).glob("step-*.png"))) > 1  # by one of them


def test_what_fails_in_one_process_is_heard_in_both_and_none_waits(over_two: Any) -> None:
    folder = over_two(*jobs(CASES), *EXTRA)
    warned = [
        torch.load(folder / f"train_epoch_end.1.32-true.broken-warn-{rank}.pt", weights_only=True) for rank in range(2)
    ]
    assert [one["error"] for one in warned] == ["", ""]
    assert [list(one["images"]) for one in warned] == [["net.4:0", "net.4:2", "net.9:1"]] * 2
    raised = torch.load(
        folder / "train_epoch_end.1.32-true.broken-raise-0.pt", weights_only=True
    )  # the first to fail ends the other
    assert "on purpose" in raised["error"]
