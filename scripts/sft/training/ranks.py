"""The processes that train one run together, as each of them sees the others; one process alone is a case of it."""

from __future__ import annotations

import os
from typing import Any

from sft.runtime.stage import StageError


class Ranks:
    """`rank` of `world` processes. Every method but `main` has to be called by all of them, in the same order."""

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank = rank
        self.world = world

    @property
    def main(self) -> bool:
        """Whether this is the process that writes what is written once."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order; any small picklable value of our own processes."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def from_main(self, value: Any) -> Any:
        """The value that the main process gave."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Return when all ranks are here."""
        # Not dist.barrier: on CUDA it would guess a device, and it does not say which rank is missing.
        self.gather(None)


def joined_ranks(expected: int) -> Ranks:
    """This process's place among those that torchrun started; StageError when they are not `expected` ones.

    Call after the process group was made (by the trainer's arguments).
    """
    import torch.distributed as dist

    told = int(os.environ.get("WORLD_SIZE", "1"))
    found = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if not expected == told == found:
        raise StageError(
            f"training.distributed.processes: {expected} were asked for, {told} were started, {found} found each "
            f"other. Start the run with the command that sft check shows"
        )
    return Ranks(dist.get_rank() if found > 1 else 0, found)
