"""What a run cost: device-hours, energy, the share of the device's arithmetic. Never a zero for what is not known.

A record in the manifest, and no part of a value.
"""

import os
from contextlib import suppress
from typing import Any

try:
    import pynvml
except ImportError:  # a system's own packages (make test-gpu): the energy is then not measured
    pynvml = None

NOT_MEASURED = "not measured"
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

    def __init__(self) -> None:
        if pynvml is not None:
            with suppress(pynvml.NVMLError):  # where it fails, every reading does
                pynvml.nvmlInit()

    def joules(self, devices: list[str]) -> float | None:
        """Energy that `devices` (indices or UUIDs) have used since the driver was loaded; None where one tells none."""
        if not devices or pynvml is None:
            return None
        try:
            return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(_handle(device)) for device in devices) / 1000
        except pynvml.NVMLError:
            return None


def _handle(device: str) -> Any:
    if device.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(device))
    return pynvml.nvmlDeviceGetHandleByUUID(device)


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
