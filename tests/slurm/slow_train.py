"""scripts/train_model.py with a pause after every optimizer step, so that a run of milliseconds can be interrupted.

PAUSE: seconds; the ranks of a run on several processes pause as well. HOG: MiB that are taken besides, after a step.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import train_model
from sft.stage import run_stage
from sft.training import launch
from sft.training.metrics_stream import MetricsStream

append = MetricsStream.append
taken: list[bytes] = []


def append_and_pause(stream: MetricsStream, row: dict) -> None:
    append(stream, row)
    if row["split"] == "train":
        if not taken:
            taken.append(b"x" * (int(os.environ.get("HOG", "0")) * 2**20))
        time.sleep(float(os.environ["PAUSE"]))


MetricsStream.append = append_and_pause
launch.RANK = str(Path(__file__).with_name("slow_rank.py"))

if __name__ == "__main__":
    run_stage(train_model.make, train_model.__doc__, train_model.add_options)
