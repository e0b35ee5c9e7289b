# Where the whole of this workflow lies: scripts and environments, not the Snakefiles alone.
#
# Snakemake fetches single Snakefiles from a git source and keeps the repository that they come from. The first process
# of a commit checks it out once, beside Snakemake's own cache of sources, which containers see, too. It is a clone, not
# an export, so that results record their commit. (Upstream has no answer for Python packages of remote modules.)

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile


def git(*arguments):
    done = subprocess.run(["git", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: git {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout.strip()


def tree(base):
    """The checkout that the folder `base` of Snakefiles (Snakemake's word for it) is in."""
    if isinstance(base, LocalSourceFile):
        return Path(base.get_path_or_uri(secret_free=False), "../..").resolve()
    if isinstance(base, LocalGitFile):
        repository = Path(base.repo_path).absolute()
    elif isinstance(base, HostingProviderFile):
        repository = base.hosted_repo.repo_clone
    else:
        sys.exit(
            f"error: {base}: this workflow is more than its Snakefile. Name the repository: "
            'github("OWNER/NAME", path="workflow/Snakefile", tag="…"), gitlab(…) or "git+file:///PATH/workflow/Snakefile@REF"'
        )
    commit = git("-C", repository, "rev-parse", "--verify", f"{base.ref}^{{commit}}")
    place = Path(workflow.sourcecache.cache_path, "snakemake-sft", commit)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as new:
            git("clone", "--quiet", "--no-checkout", repository, f"{new}/tree")
            git("-C", f"{new}/tree", "checkout", "--quiet", "--detach", commit)
            try:
                os.rename(f"{new}/tree", place)
            except OSError:
                # Another process was faster.
                if not place.exists():
                    raise
    return place


TREE = tree(workflow.current_basedir)
SCRIPTS = TREE / "scripts"
sys.path.insert(0, str(SCRIPTS))

import sft.workflow

# What is imported finds the rest of its package by itself. An outer workflow has modules of its own.
sys.path.remove(str(SCRIPTS))
if Path(sft.__file__).resolve().parent != (SCRIPTS / "sft").resolve():
    sys.exit(
        f"error: two versions of this workflow in one: {Path(sft.__file__).parent} and {SCRIPTS / 'sft'}. "
        "Use one commit of it for all modules"
    )
