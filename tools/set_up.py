"""Makes a virtual environment from the hashed locks, or brings an existing one up to date.

    python3 tools/set_up.py                    # .venv with what the workflow needs
    python3 tools/set_up.py --tests            # ... and the test tools
    python3 tools/set_up.py --torch cuda       # PyTorch's CUDA build, whatever this machine looks like
    python3 tools/set_up.py --environment DIR --only locks/conda.txt    # another lock, somewhere else

uv, itself installed by pip from a hashed lock, installs the rest; plain pip does it from the same files where uv
cannot be had (--no-uv). Indexes, wheel folders and certificates that pip is configured with are used by both. What was
installed is noted in the environment, so that a second call has nothing to do until a lock changes.

Which torch: the CUDA build where an NVIDIA driver answers; otherwise the CPU build, if an index or a folder that pip is
configured with offers it (PyPI does not), or if --torch-index names one; otherwise what PyPI serves, which on Linux
brings about 3 GB of CUDA libraries and runs on a CPU just as well. Standard library only.
"""

import argparse
import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pins import normal, read_lock

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
NOTE = "set-up.json"

# bin/sft. It finds its Python beside itself, so neither a blank in a path nor a moved checkout matters to it, and runs
# the code of the checkout that it lies in, also through a link to .venv; of `made_for` where it lies in none. The
# project is no package of the environment: those are the locks' alone, and what a script imports lies beside it.
COMMAND = """\
#!/bin/sh
'''exec' "$(dirname -- "$(readlink -f -- "$0")")/python" "$0" "$@"
' '''
import os
import sys

made_for = {root!r}
here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
root = here if os.path.isdir(os.path.join(here, "scripts", "sft", "cli")) else made_for
sys.path.insert(0, os.path.join(root, "scripts"))
from sft.cli.__main__ import main

sys.exit(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv", help="where to make it (default: .venv)")
    parser.add_argument("--tests", action="store_true", help="install the test tools too")
    parser.add_argument("--only", default="", metavar="LOCK", help="install this lock instead of the workflow's")
    parser.add_argument("--torch", choices=["auto", "cpu", "cuda"], default="auto", help="the build (default: auto)")
    parser.add_argument(
        "--torch-index", default="", help="an index with torch's CPU build: PyTorch's own CPU wheel index"
    )
    parser.add_argument("--no-uv", action="store_true", help="install with plain pip, a few minutes slower")
    options = parser.parse_args()
    if sys.version_info < OLDEST:
        fail(f"Python {'.'.join(map(str, OLDEST))} or newer is needed; {sys.executable} is {sys.version.split()[0]}")
    lock = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once must not install into each other; freed when we exit
    SetUp(options).run()


def fail(text: str) -> None:
    sys.exit(f"set-up: error: {text}")


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


class SetUp:
    """One environment being made or updated."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.home: Path = options.environment.absolute()
        self.python = self.home / "bin" / "python"
        self.note = self.home / NOTE
        self.uv = self.home / "bin" / "uv"

    def run(self) -> None:
        known = self._known()
        if known and self._is_current(known):
            self._write_command()
            return
        started = time.monotonic()
        self._make_environment()
        self.note.unlink(missing_ok=True)
        settings = self._pip_settings()
        by_uv = not self.options.no_uv and self._install_uv()
        torch = "" if self.options.only else self._choose_torch(settings, by_uv)
        tests = self.options.tests or "locks/test.txt" in (known or {}).get("installed", {})
        locks = [self.options.only or f"locks/{torch}.txt", *(["locks/test.txt"] if tests else [])]
        files = [str(ROOT / lock) for lock in locks]
        from_index = self.options.torch_index and torch == "cpu"
        if from_index:
            files[0], requirement = self._split_off_torch()
        if by_uv:
            self._sync_by_uv(files, settings)
        else:
            self._sync_by_pip(files)
        if from_index:
            self._install_torch(requirement, by_uv, settings)
        note = {
            "asked": self._asked(),
            "driver": _has_driver(),
            "installed": {lock: _digest(ROOT / lock) for lock in locks},
            "python": sys.version.split()[0],
            "torch": torch,
        }
        self._write_command()
        self.note.write_text(json.dumps(note, indent=2) + "\n")
        count = sum(len(read_lock(ROOT / lock, (ROOT / lock).parent).pins) for lock in locks)
        seconds = time.monotonic() - started
        say(f"{self._shown()} holds {' and '.join(locks)}, up to {count} packages ({seconds:.0f} s)")

    # What is there already ---------------------------------------------------

    def _asked(self) -> list[str]:
        return [self.options.only or self.options.torch, self.options.torch_index]

    def _known(self) -> dict | None:
        try:
            return json.loads(self.note.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _is_current(self, known: dict) -> bool:
        installed = known["installed"]
        return (
            self.python.exists()
            and known["asked"] == self._asked()
            and known["driver"] == _has_driver()
            and (not self.options.tests or "locks/test.txt" in installed)
            and all(_digest(ROOT / lock) == digest for lock, digest in installed.items())
        )

    def _shown(self) -> str:
        return os.path.relpath(self.home)

    # Steps -------------------------------------------------------------------

    def _make_environment(self) -> None:
        version = "{}.{}".format(*sys.version_info)
        if (self.home / "pyvenv.cfg").exists():
            has = re.search(r"^version\w* = (\d+\.\d+)", (self.home / "pyvenv.cfg").read_text(), re.MULTILINE)
            if has and has[1] == version and self.python.exists():
                if self._run([self.python, "-m", "pip", "--version"], check=False).returncode:
                    self._run([self.python, "-m", "ensurepip"])
                return
            say(f"{self._shown()} was made with another Python: making it anew")
            shutil.rmtree(self.home)
        elif self.home.exists():
            fail(f"{self.home} exists and is not a virtual environment. Remove it, or name another place")
        started = time.monotonic()
        done = self._run([sys.executable, "-m", "venv", self.home], check=False)
        if done.returncode:
            shutil.rmtree(self.home, ignore_errors=True)
            reason = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
            fail(
                f"{sys.executable} -m venv failed: {reason[0]}. On Debian and Ubuntu: apt install python{version}-venv"
            )
        say(f"made {self._shown()} with Python {sys.version.split()[0]} ({time.monotonic() - started:.0f} s)")

    def _pip(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess:
        return self._run([self.python, "-m", "pip", "--disable-pip-version-check", *arguments], check=check)

    def _install_uv(self) -> bool:
        lock = ROOT / "locks/uv.txt"
        wanted = read_lock(lock, ROOT).pins["uv"].version
        if self.uv.exists() and self._run([self.uv, "--version"], check=False).stdout.split()[1:2] == [wanted]:
            return True
        done = self._pip("install", "-q", "--no-deps", "--require-hashes", "-r", lock, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines() or ["no reason given"]
            say(f"uv {wanted} cannot be installed here ({reason[-1]}): plain pip does the work, a few minutes slower")
        return done.returncode == 0

    def _pip_settings(self) -> dict[str, str]:
        """Where pip is told to look for packages, as the variables that uv understands (uv reads no pip settings)."""
        found: dict[str, str] = {}
        for line in self._pip("config", "list", check=False).stdout.splitlines():
            # e.g. `global.index-url='…'`; what stands in the environment (`:env:`) wins over any file.
            name, _, value = line.partition("=")
            scope, _, key = name.rpartition(".")
            if scope == ":env:" or key not in found:
                found[key] = " ".join(str(ast.literal_eval(value)).split())
        settings = {
            "UV_DEFAULT_INDEX": found.get("index-url"),
            "UV_INDEX": found.get("extra-index-url"),
            "UV_FIND_LINKS": found.get("find-links", "").replace(" ", ","),
            "SSL_CERT_FILE": found.get("cert"),
            # As pip does: the best version over all indexes. The hashes say whether it is the right file.
            "UV_INDEX_STRATEGY": "unsafe-best-match" if found.get("extra-index-url") else None,
        }
        return {key: value for key, value in settings.items() if value and key not in os.environ}

    def _choose_torch(self, settings: dict[str, str], by_uv: bool) -> str:
        version = read_lock(ROOT / "locks/cuda.txt", ROOT).pins["torch"].version
        wanted, index = self.options.torch, self.options.torch_index
        if wanted == "auto" and _has_driver():
            say(f"torch {version} with CUDA, for the NVIDIA driver found here (TORCH=cpu overrides)")
            return "cuda"
        offered = index or self._offers_cpu_torch(version, settings, by_uv)
        if wanted == "cpu" and not offered:
            fail(
                f"TORCH=cpu, but no torch {version}+cpu is offered: PyPI has only the CUDA build. Name PyTorch's own "
                "CPU wheel index, whose address PyTorch's install page shows: make … TORCH=cpu TORCH_INDEX=ADDRESS"
            )
        if wanted == "cuda" and offered:
            # The folder's +cpu wheel satisfies torch==2.13.0 too, and uv would prefer it and miss its hash.
            settings["UV_FIND_LINKS"] = ""
        if wanted == "cuda" or not offered:
            say(f"torch {version} as PyPI serves it" + ("" if wanted == "cuda" else ": no CPU build is offered here"))
            return "cuda"
        say(f"torch {version}+cpu" + ("" if wanted == "cpu" else ": no NVIDIA driver here (TORCH=cuda overrides)"))
        return "cpu"

    def _offers_cpu_torch(self, version: str, settings: dict[str, str], by_uv: bool) -> bool:
        requirement = f"torch=={version}"
        if by_uv:
            command = [self.uv, "pip", "install", "--python", self.python, "--dry-run", "--no-deps", "--reinstall"]
            return f"torch=={version}+cpu" in self._run([*command, requirement], settings, check=False).stderr
        done = self._pip("install", "-q", "--dry-run", "--no-deps", "-I", "--report", "-", requirement, check=False)
        return f'"{version}+cpu"' in done.stdout

    def _split_off_torch(self) -> tuple[str, str]:
        """A copy of the CPU lock without torch, and torch's own requirement."""
        text = (ROOT / "locks/cpu.txt").read_text()
        entry = re.search(r"^(torch==\S+).*\n(?:    .*\n)+", text, re.MULTILINE)
        rest = self.home / "cpu-without-torch.txt"
        rest.write_text(text.replace(entry[0], ""))
        return str(rest), entry[1]

    def _install_torch(self, requirement: str, by_uv: bool, settings: dict[str, str]) -> None:
        """torch from the index that the user names: our lock knows the hash of the one build that we could try."""
        say(f"{requirement} from the index that TORCH_INDEX names, by its own word and not by a hash of our lock")
        arguments = ["--no-deps", "--index-url", self.options.torch_index, requirement]
        if by_uv:
            # UV_INDEX would rank above --index-url.
            alone = {"UV_INDEX": "", "UV_FIND_LINKS": ""}
            self._run([self.uv, "pip", "install", "-q", "--python", self.python, *arguments], settings | alone)
        else:
            self._pip("install", "-q", "--no-compile", *arguments)

    def _sync_by_uv(self, files: list[str], settings: dict[str, str]) -> None:
        # connection-pool, which Snakemake needs, is published as source only. Its build takes setuptools from the same
        # hashed lock (--build-constraints) instead of the newest there is.
        command = [self.uv, "pip", "install", "--exact", "-q", "--python", self.python, "--no-deps", "--require-hashes"]
        for file in files:
            command += ["-r", file]
        self._run([*command, "--build-constraints", files[0]], settings)

    def _sync_by_pip(self, files: list[str]) -> None:
        # --no-compile: byte code of all 16,000 files takes minutes, and a process compiles the few it imports.
        command = ["install", "-q", "--no-compile", "--no-deps", "--require-hashes"]
        for file in files:
            command += ["-r", file]
        self._pip(*command)
        kept = {"pip", "setuptools", "wheel", "uv"}
        kept |= {name for file in files for name in read_lock(Path(file), Path(file).parent).pins}
        listed = json.loads(self._pip("list", "--format", "json").stdout)
        left_over = [package["name"] for package in listed if normal(package["name"]) not in kept]
        if left_over:
            self._pip("uninstall", "-q", "-y", *left_over)

    def _write_command(self) -> None:
        """The command `sft` of this checkout; environments that hold another lock than the workflow's go without."""
        path, text = self.home / "bin/sft", COMMAND.format(root=str(ROOT))
        if self.options.only or (path.exists() and path.read_text() == text):
            return
        path.write_text(text)
        path.chmod(0o755)

    def _run(
        self, command: list[object], settings: dict[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | (settings or {}), check=False)
        if check and done.returncode:
            fail(f"`{' '.join(words)}` failed:\n{(done.stdout + done.stderr).strip()}")
        return done


def _has_driver() -> bool:
    """Whether an NVIDIA driver is installed and sees a device."""
    if not shutil.which("nvidia-smi"):
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


if __name__ == "__main__":
    main()
