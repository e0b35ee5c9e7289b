"""Measured peaks of training against the estimate, for six configurations on a CPU.

Trains two steps of each through train_model in a process forked after the imports, and compares the peak of its
resident memory with the estimate. What Python and its libraries take is what the same training of a model of one block
takes, less the estimate for that: a forked process counts pages of libraries only as it comes to use them, so that
neither its first moments nor the process before tell.

    python benchmarks/estimate_memory.py        # all, or those of the given numbers: 0 2 3
"""

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/smoke"), str(ROOT / "scripts")]

import small_runs  # noqa: E402
import training_nodes as runs  # noqa: E402

from sft.config.nodes import TrainSettings  # noqa: E402
from sft.estimates.estimate import Shape, Where, estimate  # noqa: E402

MIB = 2**20
# hidden size, layers, method, rows at once, activation checkpointing
CONFIGURATIONS = [
    (512, 8, "full", 8, False),
    (512, 8, "full", 2, False),
    (512, 8, "lora", 8, False),
    (512, 8, "full", 8, True),
    (768, 6, "full", 4, False),
    (768, 6, "lora", 4, True),
]


SMALLEST = (64, 1, 1, False)  # hidden size, layers, rows at once, activation checkpointing


def measured(root: Path, hidden: int, layers: int, method: str, rows: int, checkpointing: bool) -> tuple[int, int, int]:
    """(peak, estimated without the framework) MiB of a training, and tokens of the longest row."""
    nodes = root / f"nodes-{hidden}-{layers}"
    if not nodes.exists():
        # In a process of its own, so that nothing is left of it in those that are measured.
        making = multiprocessing.get_context("fork").Process(target=make_nodes, args=(nodes, hidden, layers))
        making.start()
        making.join()
        if making.exitcode:
            raise SystemExit(f"{nodes}: could not be made")
    import pyarrow.parquet as pq

    table = pq.read_table(nodes / "tokens/train.parquet")
    length = max(map(len, table.column("input_ids").to_pylist()))
    run = root / f"run-{hidden}-{method}-{rows}-{checkpointing}"
    settings = {"max_steps": 2, "save_steps": None, "eval_steps": None, "warmup_steps": 0}
    settings |= {"activation_checkpointing": checkpointing, "lora": runs.LORA | {"dropout": 0.0, "r": 16}}
    if method == "full":
        del settings["lora"]
    runs.write_run(run, {name: nodes / name for name in ("tokens", "model", "processor", "audit")}, method, **settings)
    runs._import_libraries()
    runs.train_well(run, "--micro-batch-size", str(rows))
    peak = json.loads((run / "manifest.json").read_text())["facts"]["peak_memory_mib"]
    trained = TrainSettings.read_back(json.loads((run / "config.json").read_text())["config"])
    shape = Shape.of_directory(nodes / "model" / "model")
    made = estimate(shape, trained, length, Where("cpu", rows))
    return peak, round((made.device_bytes - made.memory["framework"]) / MIB), length


def make_nodes(nodes: Path, hidden: int, layers: int) -> None:
    """A base model of that size with tokenizer, tokens and audit, below `nodes`."""
    from sft.embedded.tiny_models import make_model, make_processor

    processor = make_processor("llama")
    processor.save_pretrained(nodes / "processor" / "processor")
    source = {
        "initialise": "llama",
        "hidden_size": hidden,
        "num_layers": layers,
        "initializer_range": 0.02,
        "seed": 0,
    }
    make_model(source, processor).save_pretrained(nodes / "model" / "model")
    processor.save_pretrained(nodes / "model" / "model")
    examples = [row | {"prompt": row["prompt"] + "?" * 180} for row in small_runs.examples(18, pictures=False)]
    runs.write_tokens(nodes / "tokens", small_runs.finish(nodes / "processor"), examples, validation=2)
    small_runs.finish(nodes / "model")
    (nodes / "audit").mkdir()
    small_runs.finish(nodes / "audit")


def main() -> None:
    if os.environ.get("MALLOC_MMAP_THRESHOLD_") != "65536":
        # Otherwise glibc keeps the holes that freed tensors leave, and the peak counts them as well.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"})
    print("hidden  layers  method  rows  checkpointing  tokens  measured MiB  estimated MiB  difference")
    with tempfile.TemporaryDirectory() as folder:
        levels = {}
        for method in ("full", "lora"):
            smallest_hidden, smallest_layers, *how = SMALLEST
            peak, expected, _ = measured(Path(folder), smallest_hidden, smallest_layers, method, *how)
            levels[method] = peak - expected
        print(f"Python and its libraries: {levels['full']} MiB, with PEFT {levels['lora']} MiB")
        for configuration in [CONFIGURATIONS[int(n)] for n in sys.argv[1:]] or CONFIGURATIONS:
            hidden, layers, method, rows, checkpointing = configuration
            peak, expected, length = measured(Path(folder), *configuration)
            got = peak - levels[method]
            print(
                f"{hidden:6}  {layers:6}  {method:6}  {rows:4}  {checkpointing!s:13}  {length:6}  {got:12}  "
                f"{expected:13}  {expected / got - 1:+.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
