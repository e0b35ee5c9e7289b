"""What a run cost: device-hours, energy, the share of the device's arithmetic. Never a zero for what is not known."""

import ctypes
import os
from typing import Any

from sft.terms.measured import NOT_MEASURED

# Dense bfloat16 (without sparsity) in operations per second, by what torch calls the device; vendors' data sheets.
PEAK_OPERATIONS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "4090": 165e12,
    "B200": 2250e12,
}
CONVENTION = "6N operations a token for full training, 4N with frozen weights; no padding, no attention; bfloat16 peak"


class EnergyMeter:
    """Reads NVML's energy counters of the visible devices; without NVML every reading is None."""

    def __init__(self, library: str = "libnvidia-ml.so.1"):
        self._nvml: Any = None
        try:
            nvml = ctypes.CDLL(library)
        except OSError:
            return
        if nvml.nvmlInit_v2() == 0:
            self._nvml = nvml

    def joules(self, devices: list[str]) -> float | None:
        """Energy that `devices` (indices or UUIDs) have used since the driver was loaded; None where one tells none."""
        if self._nvml is None or not devices:
            return None
        total = 0.0
        for device in devices:
            handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
            if device.isdigit():
                found = self._nvml.nvmlDeviceGetHandleByIndex_v2(int(device), ctypes.byref(handle))
            else:
                found = self._nvml.nvmlDeviceGetHandleByUUID(device.encode(), ctypes.byref(handle))
            if found or self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
                return None
            total += millijoules.value / 1000
        return total


def visible_devices() -> list[str]:
    """The devices of CUDA_VISIBLE_DEVICES; empty where it names none."""
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name not in ("", "-1")]


def cost(attempts: list[dict[str, Any]], parameters: int, method: str, tokens_per_second: float) -> dict[str, Any]:
    """The cost of a run from its attempts (see attempts.facts): JSON values for its manifest.

    `device_hours` count every attempt, also what was lost with it. A quantity that was not measured in one attempt
    is "not measured" for the run.
    """
    joules = [attempt["joules"] for attempt in attempts if attempt.get("joules") is not None]
    processes = attempts[-1].get("processes", 1)
    device = attempts[-1].get("device_name") or ""
    peak = next((value for name, value in PEAK_OPERATIONS.items() if name in device), None)
    used = (6 if method == "full" else 4) * parameters * tokens_per_second
    return {
        "device_hours": round(sum(one["wall_seconds"] * one.get("processes", 1) for one in attempts) / 3600, 5),
        "joules": round(sum(joules), 1) if len(joules) == len(attempts) else NOT_MEASURED,
        "model_flops_utilisation": NOT_MEASURED if peak is None else round(used / (peak * processes), 4),
        "convention": CONVENTION,
    }
