"""How far two sets of logits are apart, and when that is too far."""

import math

import pytest
import torch

from sft.conversion.logit_drift import SPREAD_FLOOR, drift_faults, logit_drift, reload_bound


def test_equal_logits_have_no_drift():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    drift = logit_drift(logits, logits.clone())
    assert drift["max_difference"] == drift["relative"] == drift["max_kl"] == 0.0
    assert drift["argmax_agreement"] == 1.0
    assert drift["min_cosine"] == pytest.approx(1.0)
    assert drift["positions"] == 6
    assert drift_faults("reload", drift, 0.0) == []


def test_divergence_of_two_coins():
    # KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln(3/2) + 1/4 ln(1/2), by hand.
    reference = torch.tensor([[[math.log(0.75), math.log(0.25)]]])
    drift = logit_drift(reference, torch.zeros(1, 1, 2))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert drift["mean_kl"] == drift["max_kl"] == pytest.approx(expected, rel=1e-6)
    assert drift["max_difference"] == pytest.approx(math.log(4))
    assert drift["relative"] == pytest.approx(1.0)


def test_padding_does_not_count():
    reference, got = torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)
    got[0, 0] = 100.0
    attended = torch.tensor([[0, 1, 1]])
    assert logit_drift(reference, got, attended)["max_difference"] == 0.0
    assert logit_drift(reference, got)["max_difference"] == 100.0


def test_what_is_no_number_is_infinitely_far():
    reference, got = torch.ones(1, 1, 4), torch.ones(1, 1, 4)
    got[0, 0, 2] = float("nan")
    drift = logit_drift(reference, got)
    assert drift["relative"] == math.inf
    assert drift_faults("reload", drift, 1.0)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 1, 5\) instead of \(1, 1, 4\)"):
        logit_drift(torch.ones(1, 1, 4), torch.ones(1, 1, 5))


def test_equal_weights_must_agree_exactly_where_the_base_does():
    assert reload_bound(0.0) == 0.0
    assert reload_bound(1e-7) == SPREAD_FLOOR
    assert reload_bound(1e-4) == pytest.approx(4e-4)
