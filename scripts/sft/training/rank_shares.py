"""Which rows each rank sees in which micro batch: the same rows in the same optimizer step for any number of ranks.

The rows of an epoch come in the order in which one process would see them. The next `global_batch_size` of them are
one optimizer step, cut into micro batches, dealt to the ranks in turn. At the end of an epoch there may be fewer;
then ranks that would have nothing run a filler row that has no labels, since every rank has to take part in every
forward and backward pass. The stock sampler repeats rows of the epoch's beginning there, and trains on them twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset, Sampler

from sft.training.collate import IGNORED

if TYPE_CHECKING:
    from accelerate.data_loader import SeedableRandomSampler

    from sft.training.ranks import Ranks


class RankShare(Sampler[list[int]]):
    """Batch sampler of one rank: `accumulation` micro batches of at most `micro` rows for each optimizer step.

    A filler row has the index `~i` (below zero), i being the row it looks like.
    """

    def __init__(self, rows: Sampler[int], ranks: Ranks, micro: int, accumulation: int):
        self.rows, self.ranks, self.micro, self.accumulation = rows, ranks, micro, accumulation

    @property
    def global_batch_size(self) -> int:
        """Rows of a full optimizer step over all ranks."""
        return self.micro * self.accumulation * self.ranks.world

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.global_batch_size) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        step: list[int] = []
        for row in self.rows:
            step.append(row)
            if len(step) == self.global_batch_size:
                yield from self._share(step)
                step = []
        if step:
            yield from self._share(step)

    def _share(self, step: list[int]) -> Iterator[list[int]]:
        for k in range(self.ranks.rank, self.accumulation * self.ranks.world, self.ranks.world):
            yield step[k * self.micro : (k + 1) * self.micro] or [~step[0]]


def in_step_order(parts: list[list[list[Any]]]) -> list[Any]:
    """What was dealt, as one process would have had it: `parts[rank][micro batch]` are lists of rows."""
    return [row for turn in zip(*parts, strict=True) for micro in turn for row in micro]


class FilledRows(Dataset):
    """Rows by the indices of `RankShare`: a filler row has id None and nothing to learn."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= 0:
            return self.rows[index]
        row = self.rows[~index]
        return {**row, "id": None, "labels": [IGNORED] * len(row["labels"])}


class ShareLoader(DataLoader):
    """The training rows of one rank; `order` is the sampler whose order depends on the epoch."""

    def __init__(self, rows: Any, share: RankShare, order: SeedableRandomSampler, **options: Any):
        super().__init__(FilledRows(rows), batch_sampler=share, **options)
        self._order = order

    def set_epoch(self, epoch: int) -> None:
        """The trainer says which epoch comes next."""
        if hasattr(self._order, "set_epoch"):
            self._order.set_epoch(epoch)
