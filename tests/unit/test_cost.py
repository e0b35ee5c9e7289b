"""Cost of a run: what is unknown says so."""

import pytest

from sft.terms.measured import NOT_MEASURED
from sft.training.cost import EnergyMeter, cost

CPU = {"wall_seconds": 1800.0, "processes": 2, "device_name": None}


def test_on_a_cpu_nothing_is_zero_that_was_not_measured() -> None:
    made = cost([CPU, CPU], 1_000_000, "full", 100.0)
    assert made["device_hours"] == 2.0
    assert made["joules"] == made["model_flops_utilisation"] == NOT_MEASURED


def test_published_utilisation_of_an_8b_lora() -> None:
    """NeMo AutoModel: 12,473 tokens/s of Llama-3-8B LoRA on one H100 are 40.6 % by 4N."""
    gpu = {"wall_seconds": 60.0, "processes": 1, "device_name": "NVIDIA H100 80GB HBM3", "joules": 30_000.0}
    made = cost([gpu], 8_030_261_248, "lora", 12_473)
    assert made["model_flops_utilisation"] == pytest.approx(0.406, abs=0.002)
    assert made["joules"] == 30_000.0


def test_energy_is_unknown_where_an_attempt_did_not_measure_it() -> None:
    known = CPU | {"joules": 5.0}
    assert cost([known, CPU], 10, "full", 1.0)["joules"] == NOT_MEASURED


def test_without_nvml_nothing_is_read() -> None:
    assert EnergyMeter("libno-such-library.so").joules(["0"]) is None
