"""Feed every metric of the contract table a share of the pictures: started as one program for each process, over gloo.

Prints one line of JSON: for each row and each way of sharing, what the processes compute together, or the error.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import warnings
from typing import Any

import torch
from metric_case import MetricCase, all_cases, numbers
from torch import distributed


def measured(case: MetricCase, first: int, last: int, arguments: dict[str, Any]) -> list[float] | str:
    """Return what the metric computes over all processes, or the error."""
    try:
        metric = case.make(**arguments)
        for start in range(first, last, 2):
            metric.update(*case.part(start, min(start + 2, last)))
        return numbers(metric.compute()).tolist()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(rank: int, processes: int, store: str, pictures: int) -> None:
    """Join the group, measure this process's share of the pictures, and print."""
    warnings.simplefilter("ignore")  # a process without pictures computes before its first update
    torch.set_num_threads(1)
    timeout = dt.timedelta(seconds=180)
    init = f"file://{store}"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=processes, timeout=timeout)
    report = {}
    for case in all_cases():
        arguments = {"reduction": "none"} if case.per_picture else {}
        for way, cut in (("unequal", pictures // 3), ("all to one", pictures)):
            first, last = (0, cut) if rank == 0 else (cut, pictures)
            report[f"{case.name}, {way}"] = measured(case, first, last, arguments)
    print("REPORT", json.dumps(report))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
