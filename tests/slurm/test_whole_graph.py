"""The whole workflow on the cluster, from files to the archive."""

import json
from pathlib import Path

import pytest
from checkouts import Checkout, new_checkout
from heads import Head
from no_network import LOG, refuse_network
from slurm_cluster import Cluster

# Hangs are told by the waits below; on a machine that others use, the honest time of these tests is many minutes.
pytestmark = [pytest.mark.slurm, pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = """\
datasets:
  words: {source: {path: data}, format: prompt_completion, prompt_key: prompt, completion_key: completion,
          split: {by: file_name, train: train*, test: test*, validation: {rows: 8}}}
models:
  tiny: {source: {initialise: llama, hidden_size: 64, num_layers: 1, initializer_range: 0.05}}
experiments:
  words:
    dataset: words
    model: tiny
    method: full
    training: {learning_rate: 1e-3, global_batch_size: 8, max_steps: 2, max_length: 128}
    evaluation: {max_new_tokens: 2}
"""
# On the login node of the test there is no torch; in jobs there is.
NO_TORCH = """
import importlib.abc, os, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "trl", "peft", "datasets", "accelerate"):
            raise ModuleNotFoundError(f"the login node of this test has no {name}", name=name)
if "SLURM_JOB_ID" not in os.environ:
    sys.meta_path.insert(0, Refuse())
"""


# The stages of the data in one job, those of a run in another one (docs/slurm.md): each job starts two Snakemakes.
GROUPS = (
    *("prepare_dataset=data", "split_dataset=data", "audit_splits=data", "download_processor=data"),
    *("tokenize_dataset=data", "audit_labels=data", "train_model=run", "predict=run"),
)


def test_whole_graph(cluster: Cluster, tmp_path: Path) -> None:
    """From files to the archive, with groups, on a login node without torch and nodes without a network."""
    checkout: Checkout = new_checkout(tmp_path / "checkout")
    (checkout.path / "config/config.yaml").write_text(SMALL)
    blocked = refuse_network(tmp_path)
    guard = Path(blocked["PYTHONPATH"]) / "sitecustomize.py"
    guard.write_text(guard.read_text() + NO_TORCH)
    head = Head(cluster, checkout.path, "--config", "device=cpu", "environment=strict", "--groups", *GROUPS, **blocked)
    assert head.wait(1500) == 0, head.said[-6000:]
    assert (checkout.path / "results/archive/archive.tar.gz").exists()
    assert not (tmp_path / LOG).exists(), (tmp_path / LOG).read_text()
    # Every heavy stage ran in a job, every light one on the login node.
    ran = {
        (made := json.loads(path.read_text()))["rule"]: made["slurm"]
        for path in checkout.path.glob("results/**/manifest.json")
    }
    in_jobs = {"prepare_dataset", "split_dataset", "audit_splits", "download_processor", "tokenize_dataset"}
    in_jobs |= {"audit_labels", "train_model", "download_model", "predict", "convert_checkpoint"}
    assert {rule for rule, job in ran.items() if job} == in_jobs
    assert ran["train_model"]["memory_mib"] == 2000
    assert ran["train_model"]["restarts"] == 0
    # The trainer had an srun of its own: what it needs to hear SLURM's signals.
    assert "srun --overlap" in head.said
    assert ran["predict"]["job"] == ran["train_model"]["job"]
    assert ran["tokenize_dataset"]["job"] == ran["prepare_dataset"]["job"] != ran["train_model"]["job"]
