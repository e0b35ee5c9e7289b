"""Tests on a CUDA device, also where only the system's PyTorch, transformers and PEFT are there: `make test-gpu`.

`--on cpu` runs what can run without a device, at the same sizes, to see that nothing but the device is missing.
"""

import sys

import pytest
from device_tools import ROOT, needed

for folder in ("scripts", "benchmarks", "tests/unit", "tests/smoke"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", choices=("cuda", "cpu"), default="cuda", help="tests/gpu: the device")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """ "cuda", or "cpu" where that was asked for; skipped where there is no CUDA device."""
    torch = needed("torch")
    asked = request.config.getoption("--on", "cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device (torch {torch.__version__})")
    return asked


@pytest.fixture
def cuda(device: str) -> str:
    """For what only CUDA can do."""
    if device != "cuda":
        pytest.skip("only on a CUDA device")
    return device
