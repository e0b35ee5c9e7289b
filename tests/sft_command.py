"""The `sft` of this checkout as tests start it: in a process of its own, without an environment's bin/sft."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command(scripts: Path = ROOT / "scripts") -> list[str]:
    """What starts the command line of the code in `scripts`, as bin/sft does."""
    code = f"import sys; sys.path.insert(0, {str(scripts)!r}); from sft.cli.__main__ import main; sys.exit(main())"
    return [sys.executable, "-c", code]


def sft(
    *words: object, cwd: Path = ROOT, scripts: Path = ROOT / "scripts", **variables: str
) -> subprocess.CompletedProcess:
    """Run `sft WORDS` in `cwd`, with other environment variables where given; the caller looks at the exit code."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    return subprocess.run(
        [*command(scripts), *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
