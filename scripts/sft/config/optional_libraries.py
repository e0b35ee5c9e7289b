"""What is trained with a library that the project's own environment has not needs an environment that has it."""

from sft.config.evaluation_settings import Execution
from sft.config.experiment import Cell
from sft.packages.lock_files import lock_file, lock_packages
from sft.terms.strategies import DEEPSPEED


def missing(cell: Cell, execution: Execution) -> tuple[tuple[str, ...], str, str] | None:
    """Key, problem and fix where the environment that a cell names lacks what the cell asks for."""
    if execution.environment == "record":
        return None  # a user's own environment; what is there is seen when the run starts
    strategy = cell.training.distributed.strategy
    if strategy in DEEPSPEED and not _has(cell.environment, "deepspeed"):
        fix = "Write environment: deepspeed in the experiment, or cpu-deepspeed where there is no GPU"
        return ("training", "distributed", "strategy"), _lacks(strategy, "DeepSpeed", cell.environment), fix
    if cell.training.backend == "unsloth" and not _has(cell.environment, "unsloth"):
        fix = "Write environment: unsloth in the experiment, or cpu-unsloth where there is no GPU"
        return ("training", "backend"), _lacks("backend unsloth", "Unsloth", cell.environment), fix
    return None


def _has(lock: str | None, package: str) -> bool:
    if lock is None:
        return False
    # A lock that is not there is another problem, and told as such.
    return lock_file(lock) is None or package in lock_packages(lock)


def _lacks(what: str, library: str, lock: str | None) -> str:
    where = f"environment {lock}" if lock else "the project's own environment"
    return f"{what} needs {library}, which {where} does not have"
