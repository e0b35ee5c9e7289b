"""SIGTERM: before there is anything to lose the process leaves with 75, after that the loop is told."""

import signal
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
START = f"""
import os, signal, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from sft.runtime.stop_request import StopRequest
stop = StopRequest()
def terminate(): os.kill(os.getpid(), signal.SIGTERM)
"""


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", START + program], capture_output=True, text=True, check=False)


def test_before_training_it_leaves_at_once_and_cleans_up():
    done = run("try:\n    terminate()\n    print('went on')\nfinally:\n    terminate()\n    print('cleaned up')\n")
    assert (done.returncode, done.stdout) == (75, "cleaned up\n")


def test_deferred_it_is_only_noted():
    done = run("stop.defer()\nassert not stop.requested\nterminate()\nprint(stop.requested, stop.reason)\n")
    assert (done.returncode, done.stdout) == (0, "True SIGTERM\n")


def test_the_first_reason_stays():
    done = run("stop.defer()\nstop.request('time')\nterminate()\nprint(stop.reason)\n")
    assert (done.returncode, done.stdout) == (0, "time\n")


def test_without_a_request_nothing_is_stopped():
    assert run("print(stop.requested, stop.reason)").stdout == "False None\n"


def test_other_signals_stay_what_they_are():
    # Programs in the background of a shell inherit that SIGINT is ignored.
    program = "os.kill(os.getpid(), signal.SIGINT)"
    assert run(f"signal.signal(signal.SIGINT, signal.default_int_handler)\n{program}").returncode == -signal.SIGINT
