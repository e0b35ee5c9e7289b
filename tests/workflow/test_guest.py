"""A good guest in somebody else's workflow: its targets, handlers, modules, marks and plugins stay theirs.

Tests: sft.workflow.guest
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from checkouts import ROOT, SNAKEMAKE
from outer import CONFIGFILE, HERE, module, named, outer, refused, run, without_targets

pytestmark = pytest.mark.slow


def test_the_default_target_is_the_outer_workflow_s(tmp_path: Path) -> None:
    theirs = 'rule theirs:\n    output: "theirs.txt"\n    shell: "touch {output}"\n\n'
    target = 'rule all:\n    DEFAULT\n    input: "theirs.txt"\n\n'
    used = CONFIGFILE + module(HERE)
    before = outer(tmp_path, target.replace("    DEFAULT\n", "") + theirs + used)
    assert before.planned() == {"theirs": 1}
    (tmp_path / "Snakefile").write_text(used + theirs + target.replace("DEFAULT", "default_target: True"))
    assert before.planned() == {"theirs": 1}


def test_nothing_of_ours_is_imported_for_theirs(tmp_path: Path) -> None:
    """They have an archive.py and an envs/data.yaml of their own, as we do; and their sys.path is as it was."""
    checkout = outer(tmp_path, CONFIGFILE + module(HERE) + "\nimport archive, sys\nassert archive.MINE\n")
    (tmp_path / "archive.py").write_text("MINE = True\n")
    checkout.edit("Snakefile", lambda text: text + f"assert {str(ROOT / 'scripts')!r} not in sys.path\n")
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/data.yaml").write_text("dependencies:\n  - pip:\n      - numpy==1.0.0\n")
    run(checkout, "--until", "sft_download_dataset")
    # Nor is the PATH of their jobs another one.
    checkout.edit(
        "Snakefile", lambda text: text + '\nrule path:\n    output: "path.txt"\n    shell: "echo $PATH > {output}"\n'
    )
    run(checkout, "path.txt", PATH="/usr/bin:/bin")
    assert (tmp_path / "path.txt").read_text() == "/usr/bin:/bin\n"


@pytest.mark.parametrize("place", ["before", "after"])
def test_handlers_of_both_run(tmp_path: Path, place: str) -> None:
    handlers = 'onstart:\n    print("THEIR START")\n\nonerror:\n    print("THEIR ERROR")\n\n'
    used = module(HERE, more='    prefix: "broken"\n')
    checkout = outer(tmp_path, CONFIGFILE + (handlers + used if place == "before" else f"{used}\n{handlers}"))
    (tmp_path / "data/train.jsonl").write_text("{no json\n")
    done = checkout.snakemake("--until", "sft_prepare_dataset")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "THEIR START" in said
    assert "THEIR ERROR" in said
    assert "failed: broken/results/datasets/" in said


def test_the_process_of_a_job_on_a_cluster(tmp_path: Path) -> None:
    """As SLURM's plugin starts it, where config.json was written by the process that submits."""
    checkout = outer(tmp_path, CONFIGFILE + module(HERE, more='    prefix: "there"\n'))
    run(checkout, "--until", "sft_prepare_dataset")
    [node] = (tmp_path / "there/results/datasets").iterdir()
    (node / "manifest.json").unlink()
    target = f"sft_prepare_dataset:id={node.name}"
    run(
        checkout,
        "--mode",
        "remote",
        "--target-jobs",
        target,
        "--no-hooks",
        "--nolock",
        "--allowed-rules",
        "sft_prepare_dataset",
    )
    assert (node / "manifest.json").exists()


def test_a_killed_snakemake_goes_on(tmp_path: Path) -> None:
    """Its marks of incomplete files count for theirs, not for ours."""
    theirs = '\nrule theirs:\n    output: "theirs.txt"\n    shell: "touch {output}; sleep 60"\n'
    checkout = outer(tmp_path, CONFIGFILE + module(HERE) + theirs)
    command = [SNAKEMAKE, "--cores", "2", "theirs.txt", "sft_audits"]
    head = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (list(tmp_path.glob("results/splits/*/config.json")) and (tmp_path / "theirs.txt").exists()):
        assert time.monotonic() < end
        time.sleep(0.2)
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    run(checkout, "--unlock")
    run(checkout, "sft_audits")
    done = checkout.snakemake("-n", "theirs.txt", "sft_audits")
    assert done.returncode == 1
    assert "IncompleteFilesException" in done.stdout + done.stderr
    assert "results/" not in (done.stdout + done.stderr).partition("IncompleteFilesException")[2]


def test_rules_can_be_changed_by_the_outer_workflow(tmp_path: Path) -> None:
    more = "\nuse rule train_model from sft as sft_train_model with:\n    threads: 2\n"
    checkout = outer(tmp_path, CONFIGFILE + module(HERE) + more)
    assert without_targets(checkout.planned()) == named("sft_")
    # The plan is made once, however often Snakemake executes the Snakefile.
    assert run(checkout, "-n").count("besides its jobs") == 1


def test_other_ways_to_move_results(tmp_path: Path) -> None:
    """`replace_prefix`, and a module of a module, each with a prefix."""
    inner = module(HERE, more="    replace_prefix: {'results/': 'made/'}\n")
    checkout = outer(tmp_path, CONFIGFILE + module("'inner.smk'", "mid", more="    prefix: 'theirs'\n"))
    (tmp_path / "inner.smk").write_text(inner)
    assert without_targets(checkout.planned()) == named("mid_sft_")
    run(checkout, "--until", "mid_sft_download_dataset")
    [made] = tmp_path.rglob("manifest.json")
    assert made.parent.parent == tmp_path / "theirs/made/sources"


def test_storage_elsewhere_and_separate_disks_are_one_line(tmp_path: Path) -> None:
    """Plugins as an object store and a cloud have: for Snakemake they are there, and here they cannot be used."""
    checkout = outer(tmp_path / "work", CONFIGFILE + module(HERE))
    plugins = tmp_path / "plugins"
    for name, text in PLUGINS.items():
        (plugins / name).mkdir(parents=True)
        (plugins / name / "__init__.py").write_text(text)
    storage = ("--default-storage-provider", "far", "--default-storage-prefix", "far://x")
    assert refused(checkout, *storage, PYTHONPATH=str(plugins)).startswith("error: --default-storage-provider far: ")
    arguments = ("--executor", "away", "--jobs", "1", "--until", "sft_download_dataset")
    done = checkout.snakemake(*arguments, warm=False, PYTHONPATH=str(plugins))
    assert done.returncode == 1
    assert "error: jobs would run without a shared file system" in done.stderr.splitlines()[-1]


PLUGINS = {
    "snakemake_storage_plugin_far": """
from snakemake_interface_storage_plugins.storage_object import StorageObjectRead, StorageObjectWrite
from snakemake_interface_storage_plugins.storage_provider import StorageProviderBase

class StorageProvider(StorageProviderBase):
    def default_max_requests_per_second(self): return 1.0
    def use_rate_limiter(self): return False
    def rate_limiter_key(self, query, operation): return None
    @classmethod
    def example_queries(cls): return []
    @classmethod
    def is_valid_query(cls, query): raise NotImplementedError

class StorageObject(StorageObjectRead, StorageObjectWrite):
    pass
""",
    "snakemake_executor_plugin_away": """
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings

common_settings = CommonSettings(
    non_local_exec=True, implies_no_shared_fs=True, job_deploy_sources=True, can_transfer_local_files=True,
    pass_default_storage_provider_args=True, pass_default_resources_args=True,
    auto_deploy_default_storage_provider=False,
)

class Executor(RemoteExecutor):
    def run_job(self, job): raise AssertionError("a job was started")
    async def check_active_jobs(self, active_jobs):
        for job in active_jobs: yield job
    def cancel_jobs(self, active_jobs): return
""",
}
