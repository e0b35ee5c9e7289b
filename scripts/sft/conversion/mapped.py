"""Files of tensors that torch has mapped, and giving their pages back.

A page of a mapped file that was looked at counts as memory of the process until the file is closed or the page is
given back. It stays in the system's cache of files and comes back when it is looked at again.
"""

import ctypes
import mmap
from pathlib import Path

from torch import Tensor


class Mapped:
    """Where a file is mapped in this process; nothing of it can be given back where the system does not tell."""

    def __init__(self, path: Path):
        self._ranges = []
        maps = Path("/proc/self/maps")
        wanted = str(path.resolve())
        for line in maps.read_text().splitlines() if maps.is_file() else ():
            # 7f12-7f34 r--p 00000000 fd:00 1234   /the/path (man 5 proc_pid_maps)
            where, *_, name = line.split(maxsplit=5)
            if name == wanted:
                self._ranges.append(tuple(int(end, 16) for end in where.split("-")))

    def give_back(self, tensor: Tensor) -> None:
        """Let go of the pages of a tensor's values; of memory that is not this file's never, it would be lost."""
        storage = tensor.untyped_storage()
        first = storage.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        length = storage.data_ptr() + storage.nbytes() - first
        if any(start <= first and first + length <= end for start, end in self._ranges):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
