"""Starts the ranks of one node, for a run on several nodes: torchrun, told the node's number, deaf to SIGTERM.

train_model.py starts it on every node with srun; nobody else does.

SLURM signals every process that srun started, so a SIGTERM before the time limit or a preemption would end torchrun and
the ranks with it, before anything is saved. The trainer on the first node gets the same signal and asks the ranks to
stop together.

    srun --nodes=2 --ntasks=2 python scripts/ranks/start_ranks.py --nnodes 2 … scripts/ranks/train_rank.py PLAN
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # before the second it takes to import torchrun

import os
import sys
from pathlib import Path

from torch.distributed.run import main

if __name__ == "__main__":
    # The first node of the job has the first ranks, and the store by which all find each other.
    os.environ["PET_NODE_RANK"] = os.environ["SLURM_NODEID"]
    # What a rank writes goes through a file of its own, in a folder that train_model.py removes, and comes out by line.
    os.environ["PET_TEE"] = "3"
    os.environ["PET_LOG_DIR"] = str(Path(sys.argv[-1]).parent / "output")
    os.environ["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] = "[rank ${rank}] "
    sys.stdout.reconfigure(line_buffering=True)
    main()
