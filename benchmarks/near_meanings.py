"""Rows of nearly the same meaning: every pair compared in blocks (what audits do), against an approximate index.

Vectors as a sentence encoder gives them, one test row in a hundred near a training row. Reported are CPU seconds, and
how many of the near pairs each way finds. The index is faiss's HNSW (16 links), where faiss-cpu is installed; it is no
part of the pinned environments: python -m pip install --target /tmp/faiss faiss-cpu, and PYTHONPATH=/tmp/faiss.

    python benchmarks/near_meanings.py [--train 100000] [--test 5000]
"""

import argparse
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
SIZE = 384
SIMILARITY = 0.9


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def main() -> None:
    from sft.data.audit.leak_index import near_meanings

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--test", type=int, default=5_000)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    train = unit(draw.standard_normal((options.train, SIZE), np.float32))
    test = unit(draw.standard_normal((options.test, SIZE), np.float32))
    near = np.arange(0, options.test, 100)
    test[near] = unit(train[near].astype(np.float32) + 0.015 * draw.standard_normal((len(near), SIZE)))
    before = time.process_time()
    hits = near_meanings(train, test, SIMILARITY)
    every = time.process_time() - before
    found: dict[str, Any] = {
        "planted": len(near),
        "every pair": {"cpu_seconds": round(every, 1), "found": len(hits)},
    }
    if find_spec("faiss"):
        found["HNSW"] = indexed(train.astype(np.float32), test.astype(np.float32))
    print(json.dumps(found, indent=1))


def indexed(train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    import faiss

    index = faiss.IndexHNSWFlat(SIZE, 16, faiss.METRIC_INNER_PRODUCT)
    before = time.process_time()
    index.add(train)
    built = time.process_time()
    nearest, _ = index.search(test, 1)
    seconds = {"cpu_seconds_to_build": built - before, "cpu_seconds_to_ask": time.process_time() - built}
    return {name: round(value, 1) for name, value in seconds.items()} | {"found": int((nearest >= SIMILARITY).sum())}


if __name__ == "__main__":
    main()
