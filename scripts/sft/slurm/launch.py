"""How a stage is started inside a SLURM job: the words that stand before its command.

Snakemake's plugin starts a rule as a grandchild of SLURM's own step, and SLURM's signals reach children only. Below an
`srun` of its own the trainer is such a child: SIGTERM, before the time limit, on preemption and from scancel, reaches
it.
"""

import shlex

from sft.code import SCRIPTS


def on_one_node(threads: int) -> str:
    """One process on the node of the job, beside the step that Snakemake itself runs in.

    `--overlap`: with the same CPUs, memory and GPUs as that step, which only waits. The numbers are written out since
    the plugin drops the variables that srun would read them from.
    """
    return f"srun --overlap --nodes=1 --ntasks=1 --cpus-per-task={threads} --cpu-bind=none --unbuffered"


def on_nodes(nodes: int, processes: int, threads: int) -> str:
    """`torchrun` once per node of the job, with `processes` each; every line of output begins with its node's number.

    The job has to ask for `nodes`, as many `tasks`, and `mpi: srun` (docs/slurm.md). One failing process ends all of
    them.
    """
    srun = (
        f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={threads} --cpu-bind=none --label "
        "--unbuffered --kill-on-bad-exit=1"
    )
    launcher = shlex.quote(str(SCRIPTS / "launch_on_node.py"))
    return f"{srun} python {launcher} --processes {processes}"
