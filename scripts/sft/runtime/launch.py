"""The command that trains a run: one Python process, or torchrun with its ranks, here and on every node of a job.

    command(run, {"strategy": "none", "processes": 1, "nodes": 1})   python scripts/train_model.py RUN
    command(run, {"strategy": "ddp", "processes": 2, "nodes": 1})    … torch.distributed.run --standalone …

`train_model.py` is the one process that holds the run's directory, verifies its inputs and finishes it. With a
strategy it starts the ranks by `rank_command` and waits for them. On several nodes that command runs once on each of
them, so a prefix (`srun --ntasks-per-node 1 …`) starts it there. Imports nothing heavy.
"""

import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft.runtime.code import SCRIPTS

STRATEGIES = ("none", "ddp", "fsdp2", "fsdp1", "deepspeed_zero2", "deepspeed_zero3")
TRAIN = "train_model.py"
RANK = "ranks/train_rank.py"
NODE = "ranks/start_ranks.py"
# The agent leaves SIGTERM to us: on its own it would forward it and kill the ranks 30 seconds later, in the middle
# of writing a large checkpoint (torch 2.13, distributed/elastic/multiprocessing/api.py).
AGENT_SIGNALS = "SIGINT,SIGHUP,SIGQUIT"


@dataclass(frozen=True)
class Rendezvous:
    """Where the nodes of a job find each other: an address and port of the first one, and the run's name."""

    endpoint: str
    id: str


def is_distributed(distributed: dict[str, Any]) -> bool:
    """Whether ranks are started: everything but strategy none."""
    return distributed["strategy"] != "none"


def processes_per_node(distributed: dict[str, Any]) -> int:
    """Ranks, and with CUDA devices, on each node."""
    return distributed["processes"] // distributed["nodes"]


def options(distributed: dict[str, Any]) -> list[str]:
    """The options of train_model.py that say how to spread a run; none for one process."""
    if not is_distributed(distributed):
        return []
    found = ["--strategy", distributed["strategy"], "--processes", str(distributed["processes"])]
    found += ["--nodes", str(distributed["nodes"])] if distributed["nodes"] > 1 else []
    return found + (["--offload"] if distributed.get("offload") else [])


def command(run: str, distributed: dict[str, Any], python: str = "python") -> list[str]:
    """What a rule runs, and a person may: `train_model.py RUN` with its options. Always one process, on one node."""
    return [python, str(SCRIPTS / TRAIN), run, *options(distributed)]


def rank_command(
    plan: Path | str,
    distributed: dict[str, Any],
    python: str = sys.executable,
    rendezvous: Rendezvous | None = None,
    prefix: list[str] | tuple[str, ...] = (),
) -> list[str]:
    """What train_model.py starts: torchrun on each node, which starts that node's ranks.

    `plan` is the file that tells the ranks what to do (see sft.training.ranks_plan). `rendezvous` is needed, and
    used, on several nodes only; `prefix` comes first and starts the rest once on every node.
    """
    several = distributed["nodes"] > 1
    found = [*prefix, python, *([str(SCRIPTS / NODE)] if several else ["-m", "torch.distributed.run"])]
    found += ["--nnodes", str(distributed["nodes"]), "--nproc-per-node", str(processes_per_node(distributed))]
    found += ["--max-restarts", "0"]
    if several:
        if rendezvous is None:
            raise ValueError("several nodes need a rendezvous")
        # static: the node's number says who is first. With c10d each node compares names, which /etc/hosts may bend.
        found += ["--rdzv-backend", "static", "--rdzv-endpoint", rendezvous.endpoint, "--rdzv-id", rendezvous.id]
    else:
        found += ["--standalone"]
    return [*found, "--signals-to-handle", AGENT_SIGNALS, "--shutdown-timeout", "10", str(SCRIPTS / RANK), str(plan)]


def rendezvous_here(name: str, address: str | None) -> Rendezvous:
    """A rendezvous at a free port of this machine, which has to be the first node and is reached by `address`."""
    with socket.socket() as free:
        free.bind(("", 0))
        return Rendezvous(f"{address or socket.getfqdn()}:{free.getsockname()[1]}", name)


def shown(words: list[str]) -> str:
    """A command as a person would type it; paths below the checkout are shown relative to it."""
    root = f"{SCRIPTS.parent}/"
    return shlex.join(word.removeprefix(root) for word in words)
