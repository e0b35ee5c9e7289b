"""Whether trained tensors are where they belong, told by their likeness to the base model's, without any logits.

Fine-tuning moves weights little, so a trained tensor resembles the base's of the same name and no other. Two tensors
that changed places, one that was transposed, one that only one rank's part was saved of: each has happened in
released tools, passes a check of names and shapes, and loads. Norms and constants (a normalisation's ones) tell nothing
and are passed over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SAMPLES = 4096
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
        wanted, found = base.float(), trained.float()
        if not bool(torch.isfinite(found).all()):
            self._faults.append(f"{name}: holds NaN or infinity")
            return
        self.equal += bool(torch.equal(wanted, found))
        share = int(torch.count_nonzero(found)) / max(found.numel(), 1)
        self.norms[name] = {
            "norm": float(torch.linalg.vector_norm(found, dtype=torch.float64)),
            "base_norm": float(torch.linalg.vector_norm(wanted, dtype=torch.float64)),
            "nonzero": share,
        }
        if share == 0 and bool(wanted.any()):
            self._faults.append(f"{name}: is all zeros, the base's is not")
            return
        if found.dim() >= 2 and (part := _filled_part(wanted, found)):
            self._faults.append(f"{name}: only {part} of the rows are filled, as in a shard saved as the whole")
            return
        few = _sample(wanted)
        if found.dim() < 2 or float(few.std()) == 0:
            return
        self._shapes[name] = tuple(found.shape)
        self._base[name], self._trained[name] = few, _sample(found)
        if found.dim() == 2 and found.shape[0] == found.shape[1]:
            self._turned[name] = _sample(wanted.T)

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


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES].clone()


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
