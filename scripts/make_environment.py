"""A virtual environment that holds what one lock pins, for the cells of an experiment that name it.

Makes venv/ inside its directory with tools/set_up.py (uv, or plain pip where uv cannot be had), every file held
against the hashes of the lock, and packages.json: what is installed. Needs the package index, so Snakemake runs it
where it was started, not in a cluster job.

    python scripts/make_environment.py results/environments/cpu-accelerate-1.14-1a2b3c4d
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from sft.packages.lock_files import lock_digest, lock_file, normal
from sft.runtime.code import SCRIPTS
from sft.runtime.installed import VENV_PYTHON, installed_by
from sft.runtime.stage import Stage, StageError, run_stage


def make(stage: Stage) -> None:
    name = Path(stage.config["lock"]).stem
    lock = lock_file(name)
    if lock is None or lock_digest(name) != stage.config["packages"]:
        raise StageError(f"{stage.config['lock']} is not the lock it was when this was planned. Start again")
    python = stage.directory / VENV_PYTHON
    # Names, versions and hashes are all in the lock; where to find the files is pip's own configuration.
    command = [sys.executable, str(SCRIPTS.parent / "tools/set_up.py"), "--environment", str(python.parents[1])]
    command += ["--only", str(lock.resolve())]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for line in done.stdout.splitlines():
        stage.say(line)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise StageError(f"{lock} cannot be installed: {' '.join(reason[-3:])}")
    packages = installed_by(python)
    needed = (SCRIPTS.parent / "envs/train.in").read_text(encoding="utf-8").splitlines()
    names = {normal(line.partition("#")[0].strip()) for line in needed} - {""}
    if missing := sorted(names - packages.keys()):
        raise StageError(f"{lock} lacks {', '.join(missing)}, without which no model can be trained. Add them to it")
    stage.output("packages.json").write_text(json.dumps(packages, indent=1, sort_keys=True) + "\n")
    stage.summary(f"{len(packages)} packages")


if __name__ == "__main__":
    run_stage(make, __doc__)
