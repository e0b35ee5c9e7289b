"""The shipped example of two environments: two locks that differ in one library, one run in each, compared."""

import json
from importlib import metadata

import pytest
from checkouts import ROOT, new_checkout

pytestmark = [pytest.mark.thorough, pytest.mark.slow]
EXAMPLE = "config/experiments/digits_environments.yaml"


@pytest.mark.timeout(900)
def test_two_environments_are_two_cells_and_a_figure(tmp_path):
    if not metadata.version("torch").endswith("+cpu"):
        pytest.skip("the example's locks take torch's +cpu build, which is not offered where this was installed")
    checkout = new_checkout(tmp_path / "checkout")
    for name in ("locks", "requirements.in"):
        (checkout.path / name).symlink_to(ROOT / name)  # a lock may lie outside of the checkout
    done = checkout.snakemake("--configfile", EXAMPLE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    results = checkout.path / "results"
    held = {path.parent.name: json.loads(path.read_text()) for path in results.glob("environments/*/packages.json")}
    [older] = [packages for name, packages in held.items() if name.startswith("cpu-accelerate-1.14")]
    [pinned] = [packages for name, packages in held.items() if not name.startswith("cpu-accelerate-1.14")]
    differing = {name: (older.get(name), pinned.get(name)) for name in older.keys() | pinned.keys()}
    assert {name: pair for name, pair in differing.items() if len(set(pair)) > 1} == {
        "accelerate": ("1.14.0", metadata.version("accelerate"))
    }
    versions = {json.loads(path.read_text())["versions"]["accelerate"] for path in results.glob("runs/*/manifest.json")}
    assert versions == {"1.14.0", metadata.version("accelerate")}
    figure = results / "experiments/digits_environments/figures/environments/manifest.json"
    facts = json.loads(figure.read_text())["facts"]
    assert facts["told"] == [
        "cpu against cpu-accelerate-1.14, seed 0: tokens, prompts, loss, grad_norm, accuracy equal to the last bit "
        "(20 steps)."
    ]
    again = checkout.snakemake("--configfile", EXAMPLE, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr
