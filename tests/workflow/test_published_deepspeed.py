"""The twin of Open-R1's distillation under the ZeRO-3 that it publishes: the whole graph, in its own environment.

With DeepSpeed, whose build tools are on PATH then: make test-deepspeed.
"""

import json

import pytest
from checkouts import ROOT, new_checkout

pytest.importorskip("deepspeed", reason="DeepSpeed is in an environment of its own: make test-deepspeed")
pytestmark = pytest.mark.slow
EXPERIMENT = "config/experiments/open_r1_distill.yaml"
TWINS = ("config/experiments/twins/open_r1_distill.yaml", "config/experiments/twins/open_r1_distill_zero3.yaml")


@pytest.mark.timeout(900)
def test_open_r1_trains_under_zero3(tmp_path):
    checkout = new_checkout(tmp_path / "checkout")
    (checkout.path / "locks").symlink_to(ROOT / "locks")
    done = checkout.snakemake("--configfile", EXPERIMENT, *TWINS)
    logs = "".join(path.read_text()[-1500:] for path in checkout.path.glob("results/**/*.log"))
    assert done.returncode == 0, done.stderr[-2000:] + logs[-6000:]
    results = checkout.path / "results"
    told = [json.loads(path.read_text()) for path in results.glob("runs/*/effective.json")]
    assert [(one["distributed"]["strategy"], one["distributed"]["world_size"]) for one in told] == 2 * [
        ("deepspeed_zero3", 2)
    ]
    assert {one["effective"]["deepspeed"]["zero_optimization"]["stage"] for one in told} == {3}
    reports = [
        json.loads(path.read_text())["steps"]["4"]["logits"] for path in results.glob("runs/*/models/*/parity.json")
    ]
    proven = [report.get("converted_against_trained", report.get("checkpoint_against_trained")) for report in reports]
    assert [one["prompts"]["max_difference"] for one in proven] == [0, 0]
    assert (results / "archive/archive.tar.gz").exists()
