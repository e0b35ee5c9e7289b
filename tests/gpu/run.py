"""Runs the tests marked `gpu` with the Python that starts it, and says what of the packages they use is not there.

Needs torch and pytest; transformers, PEFT, accelerate, bitsandbytes and torchao are used where they are. From the
checkout, without any set-up:

    python tests/gpu/run.py                 # on the CUDA device
    python tests/gpu/run.py --on cpu        # what can run without one
"""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "torchao", "flash-attn", "trl", "pydantic")
PACKAGES += ("deepspeed", "unsloth")


def main() -> int:
    there, missing = [], []
    for name in PACKAGES:
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    print(f"test-gpu: {sys.executable}: {', '.join(there) or 'nothing'}; not there: {', '.join(missing) or 'nothing'}")
    if importlib.util.find_spec("pytest") is None:
        print(f"error: pytest is missing. Install it: {sys.executable} -m pip install pytest", file=sys.stderr)
        return 1
    if importlib.util.find_spec("torch") is None:
        print("error: torch is missing. Name a Python that has it: make test-gpu PYTHON=/its/path", file=sys.stderr)
        return 1
    whole = {"trl", "pydantic"}.isdisjoint(missing) and importlib.util.find_spec("pytest_timeout") is not None
    # The workflow's own tests marked gpu need its whole environment; those beside this file do not.
    command = [sys.executable, "-m", "pytest", "-rs", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    if whole:
        others = (path for path in HERE.parent.glob("*/test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8"))
        command += [str(HERE), *(str(path) for path in sorted(others) if path.parent != HERE)]
    else:
        print("test-gpu: not the workflow's environment (make setup TORCH=cuda), so its own GPU tests are left out")
        alone = ["-c", str(HERE / "pytest.ini"), "--rootdir", str(HERE), str(HERE)]
        command += alone
    return subprocess.run([*command, *sys.argv[1:]], cwd=HERE.parents[1]).returncode


if __name__ == "__main__":
    sys.exit(main())
