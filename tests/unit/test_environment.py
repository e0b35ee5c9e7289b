"""Telemetry and hub requests are off in what a script sets for its libraries.

Tests: sft.runtime.quiet
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


PROBE = """
import sys
from sft.runtime.quiet import quiet_environment
quiet_environment(network={network})
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY, constants.HF_HUB_OFFLINE)
"""


def _probe(network: bool) -> str:
    ours = ("HF_", "TRANSFORMERS_", "DO_NOT_TRACK", "DISABLE_TELEMETRY")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    command = [sys.executable, "-c", PROBE.format(network=network)]
    environment["PYTHONPATH"] = str(ROOT / "scripts")
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_a_stage_sends_no_telemetry_and_asks_no_hub():
    assert _probe(network=False) == "True True"


def test_a_download_may_ask_the_hub_but_sends_no_telemetry():
    assert _probe(network=True) == "True False"
