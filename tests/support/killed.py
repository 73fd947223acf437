"""Runs that are killed, interrupted and requeued, by real signals to processes of their own: ``killed.py FOLDER``.

The processes are forked, so that each does not import everything again; this one takes no step itself.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from toys import QUIET, toy

from featviz_pl.callbacks import Augmentation
from featviz_pl.images import FourierImage
from featviz_pl.training import FeatureVisualization

STEPS = 40
SLURM = {
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_JOB_ID": "4242",
    "SLURM_JOB_NAME": "pictures",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
}


class HalfAndHalf(torch.optim.SGD):
    """Step in two halves, and say in between that a signal may come: the worst moment there is."""

    pipe = -1

    def step(self, closure: Any = None) -> Any:
        """Move halfway, tell, give the signal time to come, and move the rest of the way."""
        with torch.enable_grad():
            loss = closure()
        super().step()
        if self.pipe >= 0:
            os.write(self.pipe, b".")
            time.sleep(0.002)
        super().step()
        return loss


def fit(folder: Path, says: int, callbacks: list[Callback], checkpoint: str | None, **arguments: Any) -> None:
    """Run, from a checkpoint if there is one, and save the weights."""
    HalfAndHalf.pipe = says
    optimizer = functools.partial(HalfAndHalf, lr=0.1, momentum=0.9)
    model = FeatureVisualization(toy(), "features.5:1,6", image=FourierImage(12), seed=4, optimizer=optimizer)
    given = {**QUIET, "max_steps": STEPS, "enable_checkpointing": True, **arguments}
    Trainer(**given, callbacks=[Augmentation("article", views=2, schedule="warmup"), *callbacks]).fit(
        model, ckpt_path=checkpoint, weights_only=True
    )
    torch.save(model.image.state_dict(), folder / "weights.pt")


def newest(folder: Path) -> str | None:
    """Return the checkpoint of the latest step."""
    found = sorted(folder.glob("step=*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    return str(found[-1]) if found else None


def forked(run: Callable[[int], None], tells: int = 0, number: int = 0) -> int:
    """Fork a process that runs; send it a signal once it has said `tells` times that it is in the middle of a step. Return how it ended."""
    listens, says = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(listens)
        code = 1
        try:
            run(says)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 3
        finally:
            os._exit(code)
    os.close(says)
    heard = 0
    while number and heard < tells and os.read(listens, 1):
        heard += 1
    if number and heard == tells:
        os.kill(process, number)
    while os.read(listens, 4096):
        pass
    os.close(listens)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def same(one: Path, other: Path) -> bool:
    """Compare weights bit for bit."""
    held, found = (torch.load(folder / "weights.pt", weights_only=True) for folder in (one, other))
    return all(torch.equal(held[name], found[name]) for name in held | found)


def kill(folder: Path, moments: random.Random) -> int:
    """Kill a run again and again until it gets to its end; return how often."""
    kills = 0
    while True:
        keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=5, save_top_k=1, monitor=None)
        ended = forked(lambda says: fit(folder, says, [keep], newest(folder)), moments.randint(6, 14), signal.SIGKILL)  # noqa: B023
        if ended == 0:
            return kills
        assert ended == -signal.SIGKILL, ended
        kills += 1


def interrupt(folder: Path, moments: random.Random) -> int:
    """Press Ctrl-C again and again; return how often."""
    times, path = 0, folder / "stopped.ckpt"
    while True:
        keep = OnExceptionCheckpoint(folder, "stopped")
        checkpoint = str(path) if path.is_file() else None
        ended = forked(lambda says: fit(folder, says, [keep], checkpoint), moments.randint(3, 9), signal.SIGINT)  # noqa: B023
        if ended == 0:
            return times
        assert ended == 1, ended
        times += 1


def requeue(folder: Path) -> str:
    """Let SLURM announce the end of a job's time, then end it; return what was asked of it."""
    tools = folder / "tools"
    tools.mkdir(parents=True)
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\nkill -KILL $PPID\n')
    (tools / "scontrol").chmod(0o755)
    os.environ.update(SLURM, PATH=f"{tools}:{os.environ['PATH']}")
    ended = forked(lambda says: fit(folder, says, [], None, default_root_dir=str(folder)), 17, signal.SIGUSR1)
    assert ended == -signal.SIGKILL, ended
    assert not (folder / "weights.pt").exists()
    assert forked(lambda says: fit(folder, says, [], None, default_root_dir=str(folder))) == 0
    return (folder / "asked").read_text().strip()


def main() -> None:
    """Run each, and compare with a run that nothing happened to."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", message=r".*isinstance.treespec, LeafSpec.* is deprecated", category=FutureWarning
    )
    for message in (
        "was called without a model",
        "no last checkpoint available",
        "Checkpoint directory .* is not empty",
        "srun",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")
    torch.set_num_threads(1)
    whole, killed, interrupted, requeued = (
        Path(sys.argv[1], name) for name in ("whole", "killed", "interrupted", "requeued")
    )
    for folder in (whole, killed, interrupted, requeued):
        folder.mkdir(parents=True)
    assert forked(lambda says: fit(whole, says, [], None)) == 0
    moments = random.Random(0)
    print("KILLED", kill(killed, moments), same(whole, killed))
    print("INTERRUPTED", interrupt(interrupted, moments), same(whole, interrupted))
    asked = requeue(requeued)
    print("REQUEUED", asked, same(whole, requeued))


if __name__ == "__main__":
    main()
