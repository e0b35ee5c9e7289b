"""SLURM: the job that a process runs in, what waits and runs, how training is launched, what the executor lacks."""
