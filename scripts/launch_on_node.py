"""Starts torchrun on one node of a SLURM job: run by srun, once per node, it finds the others by itself.

The rendezvous is on the node that srun was called on, which is the job's first; its port follows from the job's number,
so that two jobs that share a node do not meet.

    srun --nodes=2 --ntasks=2 --ntasks-per-node=1 python scripts/launch_on_node.py --processes 4 python scripts/x.py
"""

import argparse
import os
import sys

PORTS = range(20_000, 32_000)  # below what kernels hand out by themselves (Linux: 32768 and above)


def command(processes: int, program: list[str], variables: dict[str, str]) -> list[str]:
    """The torchrun command of this node. `program`: interpreter, script, arguments; `variables`: what srun gives."""
    interpreter, *script = program
    try:
        nodes, rank = int(variables["SLURM_STEP_NUM_NODES"]), int(variables["SLURM_NODEID"])
        address = variables["SLURM_LAUNCH_NODE_IPADDR"]
        port = PORTS[int(variables["SLURM_JOB_ID"]) % len(PORTS)]
    except KeyError as missing:
        sys.exit(f"error: {missing.args[0]} is not set: start this with srun, once per node of a SLURM job")
    return [
        *(interpreter, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--node-rank={rank}"),
        *(f"--nproc-per-node={processes}", f"--master-addr={address}", f"--master-port={port}"),
        *("--max-restarts=0", *script),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1, help="processes on each node, one per GPU (default: 1)")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="interpreter, script and its arguments")
    options = parser.parse_args()
    if len(options.program) < 2:
        parser.error("name an interpreter and the script to run")
    words = command(options.processes, options.program, dict(os.environ))
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
