"""How long the data stages take for many rows, and how much memory: the real scripts, as processes of their own.

Makes rows of made-up words as a published parquet file with a train and a test part, runs `prepare_dataset`,
`split_dataset` and `audit_splits` on them, and writes what each took to benchmarks/results/data_scale-<case>.json.
Forty test rows hold 20 words of a training row each: an audit that does not find all of them fails the benchmark.

    python benchmarks/data_scale.py long      # 100,000 train and 5,000 test rows of 300 tokens
    python benchmarks/data_scale.py short     # 1,000,000 rows of 20 words
    python benchmarks/data_scale.py short --rows 100000
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# (train rows, test rows, words of a row): 230 English words are about 300 tokens of a modern tokenizer.
CASES = {"long": (100_000, 5_000, 230), "short": (950_000, 50_000, 20)}
VOCABULARY, PLANTED, PLANTED_WORDS = 50_000, 40, 20
SEED = 0
COLUMNS = {
    "prompt_key": "question",
    "choice_key": None,
    "answer_key": None,
    "completion_key": "answer",
    "image_keys": [],
    "id_key": "id",
    "group_key": None,
}
PREPARED = {
    "format": "prompt_completion",
    "columns": COLUMNS,
    "choices_layout": "lines",
    "target": "text",
    "image_transform": "none",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rows", type=int, help="train rows instead of the case's")
    parser.add_argument("--keep", type=Path, help="work in this directory and leave it there")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    options = parser.parse_args()
    train, test, words = CASES[options.case]
    train = options.rows or train
    folder = options.keep or Path(tempfile.mkdtemp(prefix="data-scale-"))
    try:
        # In a process of its own: a child's peak memory, as the kernel counts it, begins with that of its parent.
        maker = multiprocessing.get_context("spawn").Process(target=make_rows, args=(folder, train, test, words))
        maker.start()
        maker.join()
        stages = run_stages(folder, train + test)
        found = json.loads((folder / "audit/audit.json").read_text())
    finally:
        if options.keep is None:
            shutil.rmtree(folder)
    # A row that a leak was taken from may have become a validation row.
    met = [pair for pair in found["pairs"] if pair["second"] == "test-0"]
    planted = sum(pair["overlap"]["ngram"]["rows"] for pair in met)
    if planted != PLANTED:
        sys.exit(f"error: {PLANTED} leaks were planted and {planted} found")
    result = {
        "case": options.case,
        "train_rows": train,
        "test_rows": test,
        "words_per_row": words,
        "planted_leaks_found": planted,
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "python": platform.python_version()},
        "load_average_at_the_end": round(os.getloadavg()[0], 1),
        "stages": stages,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"data_scale-{options.case}.json").write_text(json.dumps(result, indent=1) + "\n")


def make_rows(folder: Path, train: int, test: int, words: int) -> None:
    """Write the published files; words are drawn as Zipf's law has them, so that common ones repeat."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    files = folder / "published"
    files.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    vocabulary = np.array([f"w{number:x}" for number in range(VOCABULARY)])
    chances = 1 / np.arange(1, VOCABULARY + 1)
    chances = np.cumsum(chances / chances.sum())
    planted: list[str] = []
    for name, rows in (("train", train), ("test", test)):
        schema = pyarrow.schema(
            [("id", pyarrow.string()), ("question", pyarrow.string()), ("answer", pyarrow.string())]
        )
        with pyarrow.parquet.ParquetWriter(files / f"{name}-00000-of-00001.parquet", schema) as writer:
            for first in range(0, rows, 10_000):
                count = min(10_000, rows - first)
                drawn = vocabulary[np.searchsorted(chances, random.random((count, words)))]
                texts = [" ".join(row) for row in drawn.tolist()]
                if name == "train":
                    planted += [" ".join(row[:PLANTED_WORDS]) for row in drawn[: PLANTED - len(planted)].tolist()]
                elif first == 0:
                    texts[:PLANTED] = [f"{text} {leak}" for text, leak in zip(texts, planted, strict=False)]
                ids = [f"{name}-{first + i}" for i in range(count)]
                answers = [f"answer {first + i}" for i in range(count)]
                writer.write_batch(pyarrow.record_batch([ids, texts, answers], schema=schema))


def run_stages(folder: Path, rows: int) -> dict[str, dict[str, Any]]:
    """Run the scripts one after the other; what each took, by its own manifest and by the clock outside."""
    split = {"by": "file_name", "train": "train-*", "test": "test-*", "validation": {"rows": 1000}}
    nodes = {
        "download_dataset": ("source", {"source": {"path": str(folder / "published")}}, {}),
        "prepare_dataset": ("dataset", PREPARED, {"source": "source"}),
        "split_dataset": ("splits", {"split": split | {"deduplicate": "exact"}}, {"dataset": "dataset"}),
        "audit_splits": ("audit", {"maximum_overlap": 0}, {"train": "splits", "test-0": "splits"}),
    }
    taken = {}
    for rule, (name, config, inputs) in nodes.items():
        directory = folder / name
        directory.mkdir(exist_ok=True)
        made_from = {key: (folder / value).as_posix() for key, value in inputs.items()}
        node = {"rule": rule, "id": name, "config": config, "identity": config, "inputs": made_from}
        (directory / "config.json").write_text(json.dumps(node))
        started = time.monotonic()
        subprocess.run([sys.executable, ROOT / "scripts" / f"{rule}.py", directory], check=True)
        seconds = time.monotonic() - started
        manifest = json.loads((directory / "manifest.json").read_text())
        taken[rule] = {
            "wall_seconds": round(seconds, 1),
            "cpu_seconds": manifest["cpu_seconds"],
            "peak_rss_mib": manifest["peak_rss_mib"],
            "rows_per_second": round(rows / seconds),
        }
        print(f"{rule}: {taken[rule]}", flush=True)
    return taken


def cpu_model() -> str:
    """The processor's name, as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
