"""Whether trained tensors are where they belong, told by their likeness to the base model's, without any logits.

Fine-tuning moves weights little, so a trained tensor resembles the base's of the same name and no other. Two tensors
that changed places, one that was transposed, one that only one rank's part was saved of: each has happened in
released tools, passes a check of names and shapes, and loads. Norms and constants (a normalisation's ones) tell nothing
and are passed over.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

SAMPLES = 4096
PIECE = 2**17  # values looked at at once: half a MiB
ALIKE = 0.5  # correlation with the base's tensor of the same name; fine-tuned ones have 0.9 and more
SAME = 0.9  # correlation with another tensor, at which the two have been confused


class Likeness:
    """Collects what `faults` needs while tensors pass by, one pair at a time; keeps a few thousand values of each."""

    def __init__(self) -> None:
        self._base: dict[str, Tensor] = {}
        self._turned: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._faults: list[str] = []
        self.unlike: dict[str, float] = {}
        self.equal = 0
        self.norms: dict[str, dict[str, float]] = {}

    def see(self, name: str, base: Tensor, trained: Tensor) -> None:
        """Compare one trained tensor with the base's of the same name and shape."""
        seen = _seen(base, trained)
        if not math.isfinite(seen.norm):
            self._faults.append(f"{name}: holds NaN or infinity")
            return
        self.equal += seen.equal
        share = seen.nonzero / max(trained.numel(), 1)
        self.norms[name] = {"norm": seen.norm, "base_norm": seen.base_norm, "nonzero": share}
        if share == 0 and seen.base_norm != 0:
            self._faults.append(f"{name}: is all zeros, the base's is not")
            return
        # Half of the rows at most are filled only where half of the values are zeros.
        if trained.dim() >= 2 and share <= 0.5 and (part := _filled_part(base, trained)):
            self._faults.append(f"{name}: only {part} of the rows are filled, as in a shard saved as the whole")
            return
        few = _sample(base)
        if trained.dim() < 2 or float(few.std()) == 0:
            return
        self._shapes[name] = tuple(trained.shape)
        self._base[name], self._trained[name] = few, _sample(trained)
        if trained.dim() == 2 and trained.shape[0] == trained.shape[1]:
            self._turned[name] = _sample_turned(base)

    def faults(self) -> list[str]:
        """A sentence for each tensor that is not the one of its name."""
        found = list(self._faults)
        for name, trained in self._trained.items():
            alike = _correlation(self._base[name], trained)
            if alike >= ALIKE:
                continue
            self.unlike[name] = alike
            others = (other for other, shape in self._shapes.items() if shape == self._shapes[name] and other != name)
            holds = [other for other in others if _correlation(self._base[other], trained) >= SAME]
            if name in self._turned and _correlation(self._turned[name], trained) >= SAME:
                found.append(f"{name}: is transposed")
            elif holds:
                found.append(f"{name}: holds what belongs to {holds[0]}")
        return found


class _Seen(NamedTuple):
    """Of a pair of tensors: norms, values that are not 0, whether the two are equal."""

    norm: float
    base_norm: float
    nonzero: int
    equal: bool


def _seen(base: Tensor, trained: Tensor) -> _Seen:
    """Looks at pieces that stay in the processor's cache: a pass over a large tensor costs as much as reading it.

    Squares are added in float32 within a piece and in float64 over pieces; NaN and infinity stay what they are.
    """
    square, base_square, nonzero, equal = 0.0, 0.0, 0, True
    for one, other in zip(base.reshape(-1).split(PIECE), trained.reshape(-1).split(PIECE), strict=True):
        wanted, found = one.float(), other.float()
        square += float(torch.dot(found, found))
        base_square += float(torch.dot(wanted, wanted))
        nonzero += int(torch.count_nonzero(found))
        equal = equal and torch.equal(wanted, found)
    if not math.isfinite(square) and bool(torch.isfinite(trained).all()):
        square = float(torch.linalg.vector_norm(trained, dtype=torch.float64)) ** 2  # of values above 1e19
    if base_square == 0 or not math.isfinite(base_square):  # or below 1e-19
        base_square = float(torch.linalg.vector_norm(base, dtype=torch.float64)) ** 2
    return _Seen(math.sqrt(square), math.sqrt(base_square), nonzero, equal)


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES].float().clone()


def _sample_turned(tensor: Tensor) -> Tensor:
    """The values that `_sample` would take of the transposed square matrix, without making it."""
    size = len(tensor)
    places = torch.arange(0, tensor.numel(), max(1, tensor.numel() // SAMPLES))[:SAMPLES]
    return tensor[places % size, places // size].float()


def _correlation(one: Tensor, other: Tensor) -> float:
    first, second = one - one.mean(), other - other.mean()
    below = float(first.norm() * second.norm())
    return float(first @ second) / below if below else 0.0


def _filled_part(base: Tensor, found: Tensor) -> str:
    """ "1/2" where half of the rows are zeros that the base has values in."""
    filled, wanted = (tensor.flatten(1).any(1) for tensor in (found, base))
    count, whole = int(filled.sum()), int(wanted.sum())
    return f"1/{whole / count:g}" if 0 < count <= whole / 2 and not bool((filled & ~wanted).any()) else ""


def summary(likeness: Likeness) -> dict[str, Any]:
    """What is worth keeping of the comparison: JSON values."""
    changes = [abs(one["norm"] / one["base_norm"] - 1) for one in likeness.norms.values() if one["base_norm"]]
    return {
        "tensors": len(likeness.norms),
        "equal_to_base": likeness.equal,
        "largest_change_of_norm": max(changes, default=0.0),
        "smallest_nonzero_share": min((one["nonzero"] for one in likeness.norms.values()), default=0.0),
        "unlike_base": likeness.unlike,
    }
