"""Which failures are told as too little memory: those of a micro batch that is halved, and no others."""

import pytest
import torch

from sft.runtime.out_of_memory import is_out_of_memory


def raised(make) -> BaseException:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        make()
    return caught.value


def test_pythons_and_torchs_own_on_a_cpu():
    assert is_out_of_memory(raised(lambda: bytearray(2**62)))
    assert is_out_of_memory(raised(lambda: torch.empty(2**60, dtype=torch.uint8)))


def test_torchs_on_a_device():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
        RuntimeError("could not allocate a port"),
        OSError(28, "No space left on device"),
        ValueError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_others_are_not(error: BaseException):
    assert not is_out_of_memory(error)
