"""How far the logits of one model are from those of another on the same inputs, and how far they may be.

Three situations, three bounds. The same weights in the same implementation give equal logits, bit for bit, on
one machine with one number of threads. A merge in float32 rounds each adapted weight once and adds in another order:
1e-5 of the largest logit, and more only where the trained model itself answers so to other last bits of the same
weights, which is measured then (adapters of a high learning rate make models that do). A narrower type rounds, and
how much depends on the model, so the error is compared with that of the unmerged model in the same type on the same
inputs; a constant bound has been wrong for every project that set one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

MERGE_BOUND = 1e-5  # relative to the largest logit, float32
# Beyond it: so many times the largest of so many measured answers to other last bits, and never more than this.
LAST_BITS_FACTOR, LAST_BITS_DRAWS, LARGEST_MERGE_BOUND = 4, 3, 1e-3
TYPE_FACTOR = 4  # times the error of the unmerged model in the narrow type
# Where the run was on another kind of machine, its step-0 logits differ from those of the same base here. That
# measured spread sets the bound for the other steps, as long as it is no larger than this.
LARGEST_SPREAD = {"float32": 1e-3, "bfloat16": 5e-2}
SPREAD_FACTOR = 4
SPREAD_FLOOR = 1e-5

CHUNK_VALUES = 2**24  # logits compared at once (128 MiB as float64)


def logit_drift(reference: Tensor, got: Tensor, attended: Tensor | None = None) -> dict[str, Any]:
    """Differences of logits (rows, positions, vocabulary), over the positions where `attended` is not 0.

    max_difference: the largest absolute one; relative: it divided by the largest absolute reference logit;
    mean_kl, p95_kl, max_kl: of KL(reference || got) per position, in nats; min_cosine; argmax_agreement:
    share of positions with the same likeliest token; positions. ValueError when the shapes differ. Logits that are
    not finite are infinitely far.
    """
    if reference.shape != got.shape:
        raise ValueError(f"logits have shape {tuple(got.shape)} instead of {tuple(reference.shape)}")
    kept = slice(None) if attended is None else attended.reshape(-1).bool()
    first, second = (logits.reshape(-1, logits.shape[-1])[kept] for logits in (reference, got))
    difference, scale, agreement = 0.0, 0.0, 0
    kl, cosine = [], []
    rows = max(1, CHUNK_VALUES // first.shape[-1])
    for one, other in zip(first.split(rows), second.split(rows), strict=True):
        one, other = one.double(), other.double()
        if not torch.isfinite(other).all():
            difference = float("inf")  # max() below would lose a NaN
        difference = max(difference, (one - other).abs().max().item())
        scale = max(scale, one.abs().max().item())
        agreement += int((one.argmax(-1) == other.argmax(-1)).sum())
        log_p, log_q = one.log_softmax(-1), other.log_softmax(-1)
        # Rounding can make a KL of equal distributions slightly negative.
        kl.append((log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0))
        cosine.append(torch.nn.functional.cosine_similarity(one, other, dim=-1))
    every_kl = torch.cat(kl)
    return {
        "positions": len(first),
        "max_difference": difference,
        "max_logit": scale,
        "relative": difference / max(scale, 1e-30),
        "mean_kl": every_kl.mean().item(),
        "p95_kl": every_kl.quantile(0.95).item(),
        "max_kl": every_kl.max().item(),
        "min_cosine": torch.cat(cosine).min().item(),
        "argmax_agreement": agreement / len(first),
    }


def mean_loss(logits: Tensor, ids: Tensor, attended: Tensor | None = None) -> float:
    """Mean cross-entropy, in nats, of each token of `ids` (rows, positions) after those before it.

    Left aside is what `attended` has 0 for, and what has no logit (the picture's placeholder of Llama-3.2-Vision).
    """
    targets = ids[:, 1:].flatten().long()
    counted = targets < logits.shape[-1]
    if attended is not None:
        counted &= attended[:, 1:].flatten().bool()
    predicted = logits[:, :-1].flatten(0, 1)[counted].double()
    return float(torch.nn.functional.cross_entropy(predicted, targets[counted]))


def merge_bound(answers: Iterable[float]) -> float:
    """How far a merge in float32 may move logits; `answers`: how far the model moves them with other last bits."""
    return max(MERGE_BOUND, min(LAST_BITS_FACTOR * max(answers, default=0.0), LARGEST_MERGE_BOUND))


def drift_faults(what: str, drift: Mapping[str, Any], bound: float) -> list[str]:
    """A fault when the relative difference is above `bound` (0: any difference is) or is no number."""
    relative = drift["relative"]
    if relative <= bound:  # False for NaN
        return []
    allowed = "no difference is allowed" if bound == 0 else f"{bound:.3g} of the largest logit is allowed"
    return [
        f"{what}: logits differ by {drift['max_difference']:.3g}, {relative:.3g} of the largest logit; {allowed} "
        f"(mean KL {drift['mean_kl']:.3g}, same likeliest token at {drift['argmax_agreement']:.1%} of positions)"
    ]


def reload_bound(spread: float) -> float:
    """What logits of equal weights may differ by, given the relative spread of the base's logits, run here and there.

    0 when the base's were equal. Otherwise a multiple of the spread, since other weights round otherwise, and never
    less than a merge is allowed.
    """
    return max(SPREAD_FACTOR * spread, SPREAD_FLOOR) if spread > 0 else 0.0
