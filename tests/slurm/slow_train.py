"""scripts/train_model.py with a pause after every optimizer step, so that a run of milliseconds can be interrupted."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import train_model
from sft.stage import run_stage
from sft.training.metrics_stream import MetricsStream

append = MetricsStream.append


def append_and_pause(stream: MetricsStream, row: dict) -> None:
    append(stream, row)
    if row["split"] == "train":
        time.sleep(float(os.environ["PAUSE"]))


MetricsStream.append = append_and_pause
run_stage(train_model.make, train_model.__doc__, train_model.add_options)
