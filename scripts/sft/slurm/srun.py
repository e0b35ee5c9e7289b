"""How a stage is started inside a SLURM job: the words that stand before its command.

Snakemake's plugin starts a rule as a grandchild of SLURM's own step, and SLURM's signals reach children only. Below an
`srun` of its own the trainer is such a child: SIGTERM, before the time limit, on preemption and from scancel, reaches
it.
"""


def on_first_node(threads: int) -> str:
    """One process on the first node of the job, beside the step that Snakemake itself runs in.

    `--overlap`: with the same CPUs, memory and GPUs as that step, which only waits. The numbers are written out since
    the plugin drops the variables that srun would read them from.
    """
    return f"srun --overlap --relative=0 --nodes=1 --ntasks=1 --cpus-per-task={threads} --cpu-bind=none --unbuffered"


def on_every_node(nodes: int, threads: int) -> str:
    """The same once on each node: train_model.py starts the ranks of a run with it (--launch-prefix).

    Every line of output begins with its node's number, and one failing process ends them all. The job has to ask for
    `nodes`, as many `tasks`, and `mpi: srun` (docs/slurm.md). The variable that is left out was set by `on_first_node`:
    in it the job has one node, and srun would believe it.
    """
    return (
        f"env --unset=SLURM_JOB_NODELIST srun --overlap --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 "
        f"--cpus-per-task={threads} --cpu-bind=none --unbuffered --label --kill-on-bad-exit=1"
    )
