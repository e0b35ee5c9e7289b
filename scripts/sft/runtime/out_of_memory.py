"""Too little memory, told from other failures, whatever allocates it. Imports nothing heavy."""


class OutOfMemoryError(Exception):
    """A micro batch needs more memory than there is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is one of Python's, of torch on CUDA (torch.OutOfMemoryError), or of torch on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # torch's CPU allocator raises a plain RuntimeError (c10/core/impl/alloc_cpu.cpp).
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error) and "allocate" in str(error)
