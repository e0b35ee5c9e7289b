"""How often a process of two that exchange tensors over gloo aborts when it ends: as Python ends, and as ranks do.

    python benchmarks/rank_exits.py --pairs 300

Each pair is forked from a process that has imported torch, exchanges small tensors a few times and ends, either by
taking the interpreter apart or by sft.training.rank.leave. What ends otherwise than with 0 is counted.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import torch
import torch.distributed as dist

from sft.training.rank import leave

WAYS = {"as Python ends": sys.exit, "as ranks end": leave}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300)
    pairs = parser.parse_args().pairs
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    for name, end in WAYS.items():
        codes = [code for _ in range(pairs) for code in exit_codes(end) if code]
        counts = ", ".join(f"{codes.count(code)} x {code}" for code in sorted(set(codes))) or "none"
        print(f"{name}: of {pairs} pairs ended otherwise than with 0: {counts}", flush=True)


def exit_codes(end: Callable[[int], NoReturn]) -> list[int]:
    """Of a pair of processes (negative: the signal that ended it)."""
    store, children = Path(tempfile.mkdtemp(), "store"), []
    for rank in range(2):
        if (pid := os.fork()) == 0:
            exchange(rank, f"file://{store}")
            end(0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    shutil.rmtree(store.parent)
    return codes


def exchange(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    tensor = torch.ones(1000)
    for _ in range(20):
        dist.all_reduce(tensor)
        dist.all_gather([torch.empty(1000) for _ in range(2)], tensor)
    dist.all_gather_object([None, None], None)


if __name__ == "__main__":
    main()
