"""Looking at a model in training must not change what it trains on next."""

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Put the random states of Python, numpy and torch (all devices) back as they were when the block began."""
    import numpy as np
    import torch

    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
