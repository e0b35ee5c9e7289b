"""What the tests on a device share."""

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def needed(name: str) -> Any:
    """The imported package; skipped, saying so, where it is missing or cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a package for another CUDA raises anything
        pytest.skip(f"{name} is not there ({type(error).__name__}: {str(error).splitlines()[:1]})")
