"""Starts torchrun on one node of a SLURM job: run by srun, once per node, it finds the others by itself.

The rendezvous is on the node that srun was called on, which is the job's first; its port follows from the job's number,
so that two jobs that share a node do not meet. Each process knows its rank, and lines of output carry it.

    srun --nodes=2 --ntasks=2 --ntasks-per-node=1 python scripts/launch_on_node.py --processes 4 scripts/train_model.py
    …
"""

import argparse
import os
import sys

PORTS = range(20_000, 32_000)  # below what kernels hand out by themselves (Linux: 32768 and above)


def command(processes: int, program: list[str], variables: dict[str, str]) -> list[str]:
    """The torchrun command of this node; `variables` are those that srun gives its tasks."""
    try:
        nodes, rank = int(variables["SLURM_STEP_NUM_NODES"]), int(variables["SLURM_NODEID"])
        address = variables["SLURM_LAUNCH_NODE_IPADDR"]
        port = PORTS[int(variables["SLURM_JOB_ID"]) % len(PORTS)]
    except KeyError as missing:
        sys.exit(f"error: {missing.args[0]} is not set: start this with srun, once per node of a SLURM job")
    return [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--node-rank={rank}"),
        *(f"--nproc-per-node={processes}", f"--master-addr={address}", f"--master-port={port}"),
        *("--max-restarts=0", "--redirects=0", *program),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1, help="processes on each node, one per GPU (default: 1)")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="the script and its arguments")
    options = parser.parse_args()
    if not options.program:
        parser.error("name the script to run")
    words = command(options.processes, options.program, dict(os.environ))
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
