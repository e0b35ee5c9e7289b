"""scripts/train_model.py that can be held still after an optimizer step, so that a run of milliseconds can be met.

While there is a file `hold` in the run's directory, every step ends with waiting until it is gone or a stop is asked
for; the ranks of a run on several processes wait as well. PAUSE: seconds to wait in any case. HOG: MiB that are taken
besides, after a step.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import train_model
from sft.runtime import launch
from sft.runtime.stage import run_stage
from sft.runtime.stop_request import StopRequest
from sft.training.metrics_stream import MetricsStream

append, request = MetricsStream.append, StopRequest.request
taken: list[bytes] = []
asked: list[str] = []


def append_and_pause(stream: MetricsStream, row: dict) -> None:
    append(stream, row)
    if row["split"] == "train":
        if not taken:
            taken.append(b"x" * (int(os.environ.get("HOG", "0")) * 2**20))
        time.sleep(float(os.environ.get("PAUSE", "0")))
        run = Path(stream._file.name).parent
        while (run / "hold").exists() and not asked and not any(run.glob(".attempt-*/ranks/stop")):
            time.sleep(0.05)


def request_and_go_on(stop: StopRequest, reason: str) -> None:
    asked.append(reason)
    request(stop, reason)


MetricsStream.append = append_and_pause
StopRequest.request = request_and_go_on
launch.RANK = str(Path(__file__).with_name("slow_rank.py"))

if __name__ == "__main__":
    run_stage(train_model.make, train_model.__doc__, train_model.add_options)
