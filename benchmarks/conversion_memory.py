"""Peak memory of conversions with their proof, for two sizes of a random Llama, both methods and both types.

    python benchmarks/conversion_memory.py

What jobs ask for where nobody says (sft/estimates/job_memory.py) has to be above it. Each conversion is a process of
its own.
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("scripts", "tests/smoke", "benchmarks")]

import estimate_memory  # noqa: E402
import small_runs  # noqa: E402
import training_nodes as runs  # noqa: E402

from sft.runtime.code import SCRIPTS  # noqa: E402

MIB = 2**20
SETTINGS = {"max_steps": 2, "save_steps": None, "eval_steps": None, "warmup_steps": 0}


def peak_mib(command: list[str]) -> int:
    """Most memory that was resident in a command that ends well."""
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return used.ru_maxrss // 1024


def main() -> None:
    print("hidden  layers  weights MiB  method  type      peak MiB")
    with tempfile.TemporaryDirectory() as folder:
        for hidden, layers in ((512, 8), (768, 10)):
            place = Path(folder, str(hidden))
            estimate_memory.make_nodes(place, hidden, layers)
            nodes = {name: place / name for name in ("tokens", "model", "processor", "audit")}
            weights = sum(file.stat().st_size for file in (place / "model/model").glob("*.safetensors")) // MIB
            for method in ("lora", "full"):
                run = runs.train_well(runs.write_run(place / method, nodes, method, **SETTINGS))
                inputs = {"run": run, "model": nodes["model"], "processor": nodes["processor"]}
                for dtype in ("float32", "bfloat16"):
                    config = {"dtype": dtype, "method": method, "steps": "last"}
                    target = small_runs.write_node(place / f"{method}-{dtype}", "convert_checkpoint", config, inputs)
                    peak = peak_mib([sys.executable, str(SCRIPTS / "convert_checkpoint.py"), str(target)])
                    print(f"{hidden:6}  {layers:6}  {weights:11}  {method:6}  {dtype:8}  {peak:8}", flush=True)


if __name__ == "__main__":
    main()
