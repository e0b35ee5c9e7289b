"""Writes explicit pin files of the conda environments, on a machine that reaches their channel.

    make pin                     # or: python tools/pin.py
    make pin STAGES="report"     # some of them

For each envs/<stage>.yaml, beside it:
envs/<stage>.<platform>.pin.txt    every conda package, python's native libraries included, by address and md5
envs/<stage>.post-deploy.sh        the yaml's pip section

Snakemake then makes the environment of this platform from the pin file instead of the yaml, without solving, and runs
the script inside it (a pin file alone would leave the pip section out without a word). Commit both, or neither; `make
lock-check` holds them to the yaml. On other platforms, and where the channel no longer has a file, the yaml is used.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pin_check import post_deploy_script
from pins import read_yaml, stage_sources

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help="names of environments (default: all)")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: the one this script is in)")
    options = parser.parse_args()
    if not shutil.which("conda"):
        sys.exit("error: no conda on PATH. Pin files are solved by conda (24.7.1 or newer)")
    known = [source.stem for source in stage_sources(options.root)]
    if unknown := sorted(set(options.stages) - set(known)):
        sys.exit(f"error: there is no envs/{unknown[0]}.yaml; there are {', '.join(known)}")
    platform = json.loads(_conda("info", "--json"))["platform"]
    solved: dict[tuple[str, ...], str] = {}
    for stage in options.stages or known:
        yaml = read_yaml(options.root / f"envs/{stage}.yaml", options.root)
        if yaml.problems:
            sys.exit(f"error: {yaml.problems[0]}")
        packages = tuple(f"{pin.name}=={pin.version}" for pin in yaml.conda.values())
        solved[packages] = solved.get(packages) or _solve(packages)
        pin = options.root / f"envs/{stage}.{platform}.pin.txt"
        pin.write_text(f"# Written by `make pin` from envs/{stage}.yaml. platform: {platform}\n{solved[packages]}")
        script = options.root / f"envs/{stage}.post-deploy.sh"
        script.write_text(post_deploy_script(yaml))
        count = sum(1 for line in solved[packages].splitlines() if "#" in line)
        print(f"{pin.relative_to(options.root)}: {count} conda packages; {script.name}: {len(yaml.pins)} of pip")


def _solve(packages: tuple[str, ...]) -> str:
    """The explicit list of everything that `packages` need, from the channels of the yaml files."""
    with tempfile.TemporaryDirectory() as scratch:
        prefix = str(Path(scratch) / "environment")
        channels = ("--override-channels", "--channel", "conda-forge")
        _conda("create", "--quiet", "--yes", "--no-default-packages", *channels, "--prefix", prefix, *packages)
        listed = _conda("list", "--explicit", "--md5", "--prefix", prefix)
    return "".join(f"{line}\n" for line in listed.splitlines() if not line.startswith("#"))


def _conda(*arguments: str) -> str:
    done = subprocess.run(["conda", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: conda {arguments[0]} failed:\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
