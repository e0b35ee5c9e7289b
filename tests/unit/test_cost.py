"""Cost of a run: what is unknown says so."""

import ast
import os
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

from sft.reporting import costs
from sft.runtime.code import SCRIPTS
from sft.runtime.cost import NOT_MEASURED, cost

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


# What a driver of two devices answers: the first by its number and its UUID, the second without an energy counter.
DRIVER = """
#include <string.h>
int nvmlInitWithFlags(unsigned flags) { return INIT; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(long)(index + 1);
    return INIT ? 1 : index < 2 ? 0 : 6;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = (void *)1;
    return INIT ? 1 : strcmp(uuid, "GPU-first") ? 6 : 0;
}
#ifdef COUNTER
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    if (device != (void *)1) return 3;
    *millijoules = 5000000123ULL;
    return 0;
}
#endif
"""
ASKED = [["0"], ["GPU-first"], ["0", "GPU-first"], ["1"], ["0", "1"], ["7"], ["GPU-none"], []]


def readings(driver: Path | None) -> list[float | None]:
    """What the meter reads of each of ASKED where the machine's NVML is in the folder `driver`."""
    text = f"from sft.runtime.cost import EnergyMeter as Meter; m = Meter(); print([m.joules(d) for d in {ASKED}])"
    paths = {"PYTHONPATH": str(SCRIPTS)} | ({"LD_LIBRARY_PATH": str(driver)} if driver else {})
    done = subprocess.run(
        [sys.executable, "-c", text], env=os.environ | paths, capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout)


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler (cc) to build a driver with")
@pytest.mark.parametrize(
    ("flags", "read"),
    [
        (["-DINIT=0", "-DCOUNTER"], [5000000.123, 5000000.123, 10000000.246, None, None, None, None, None]),
        (["-DINIT=0"], [None] * 8),  # a driver older than the counters
        (["-DINIT=9", "-DCOUNTER"], [None] * 8),  # the library without its kernel module
    ],
    ids=["counters", "no counters", "no kernel module"],
)
def test_energy_is_read_from_the_driver(flags: list[str], read: list[float | None], tmp_path: Path) -> None:
    (tmp_path / "nvml.c").write_text(DRIVER)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", library, tmp_path / "nvml.c"], check=True)
    assert readings(tmp_path) == read


@pytest.mark.skipif(bool(find_library("nvidia-ml")), reason="this machine has NVML")
def test_without_nvml_nothing_is_read() -> None:
    assert readings(None) == [None] * len(ASKED)


def test_tables_know_what_the_record_writes_where_nothing_was_measured() -> None:
    """Two constants, so that an edit of the record's makes no table again, and one text."""
    assert costs.NOT_MEASURED == NOT_MEASURED
