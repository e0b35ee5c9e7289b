"""What jobs of finished results would ask for, against what they took.

    python benchmarks/job_time.py [CONFIG …]

In a checkout with results (`make demo`, `make demo-text`). Of each training, conversion and prediction: the seconds
that its work is taken for on a slow machine (sft.estimates.job_time), those that it took, and the minutes that it would
ask for. What took longer than is asked for is an error.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from sft.config.reader import load
from sft.estimates.job_time import job_minutes, job_seconds
from sft.planning.planner import make_plan
from sft.runtime import manifest

RULES = ("train_model", "convert_checkpoint", "ask_base", "predict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="*", type=Path)
    plan = make_plan(load(parser.parse_args().config))
    cut = 0
    print(f"{'':60} {'work, s':>8} {'took, s':>8} {'asks, min':>9}")
    for rule in RULES:
        for node in plan.of_rule(rule):
            made = manifest.read(node.directory)
            if made is None:
                continue
            took, asks = made["wall_seconds"], job_minutes(node)
            cut += took > 60 * asks
            print(f"{rule + ' ' + node.id:60} {job_seconds(node) or 0:8.0f} {took:8.0f} {asks:9}")
    sys.exit(f"error: {cut} took longer than they would ask for" if cut else 0)


if __name__ == "__main__":
    main()
