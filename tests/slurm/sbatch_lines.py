"""The sbatch line of every job that a workflow would submit, from Snakemake's plugin itself; nothing is submitted."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from checkouts import Checkout

# Runs Snakemake's own command line. When the first jobs are about to be submitted the whole graph is known: the plugin
# writes the line of each job that would go to SLURM, and the process ends.
DRIVER = """
import os, sys
import snakemake_executor_plugin_slurm as plugin

plugin.get_account = lambda logger: None
plugin.validate_account = lambda account, logger: account

def show(executor, _jobs):
    dag = executor.workflow.dag
    for job in {dag.get_job_group(job) or job for job in dag.needrun_jobs()}:
        if job.is_local or (not job.is_group() and job.is_norun):
            continue
        parameters = {
            "run_uuid": "RUN", "slurm_logfile": "LOG", "comment_str": f"rule_{job.name}",
            "account": next(executor.get_account_arg(job)), "partition": executor.get_partition_arg(job), "workdir": "",
        }
        plugin.validate_slurm_extra(job)
        line = plugin.get_submit_command(job, parameters, settings=executor.workflow.executor_settings)
        print("LINE " + line + plugin.set_gres_string(job), flush=True)
    os._exit(0)

plugin.Executor.run_jobs = show
from snakemake.cli import main
main(sys.argv[1:])
"""


def sbatch_lines(checkout: Checkout, profile: str, *arguments: str) -> dict[str, str]:
    """Rule -> the options of its sbatch call that matter, in the order of the plugin."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "--nolock", "--no-hooks", "--profile", profile, *arguments],
        cwd=checkout.path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = re.findall(r"^LINE (.*)$", done.stdout, re.MULTILINE)
    assert lines, done.stdout + done.stderr
    found: dict[str, str] = {}
    for line in lines:
        words = [word for word in shlex.split(line) if word not in ("sbatch", "--parsable", "--export=ALL")]
        rule = words[words.index("--comment") + 1].removeprefix("rule_")
        for option in ("--job-name", "--output", "--comment"):
            at = words.index(option)
            del words[at : at + 2]
        emitted = " ".join(words)
        assert found.setdefault(rule, emitted) == emitted, f"{rule}: two lines\n{found[rule]}\n{emitted}"
    return dict(sorted(found.items()))


def with_site(profile: Path, site: str) -> None:
    """Put another site's block into a profile, between the two lines that mark it."""
    text = profile.read_text()
    head, rest = re.split(r"(?m)^# ---- your site.*\n", text)
    _, tail = re.split(r"(?m)^# ---- end of your site.*\n", rest)
    profile.write_text(f"{head}# ---- your site ----\n{site}# ---- end of your site ----\n{tail}")
