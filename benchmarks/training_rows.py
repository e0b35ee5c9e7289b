"""What training rows cost in memory and time: mapped (sft/training/token_rows.py), against all of them in memory.

Makes a set of pictures that no compression makes smaller, then, in a process for each way, reads the rows of one epoch
in random order, and decodes every picture as the collator does. Reported: anonymous memory (RssAnon), which no kernel
can take back, and file pages (RssFile), which it can; CPU and wall seconds of the first epoch and of the second.

    python benchmarks/training_rows.py [--megabytes 1500] [--folder /tmp/rows]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
SIDE = 192  # pixels; 110 kB as PNG of noise


def make_tokens(folder: Path, megabytes: int) -> None:
    """The files that tokenising leaves, as far as training rows need them."""
    import io

    import numpy as np
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    from sft.data.read import examples
    from sft.runtime import manifest

    draw = np.random.default_rng(0)
    fields = {"id": pyarrow.string()} | dict.fromkeys(("input_ids", "labels"), pyarrow.list_(pyarrow.int32()))
    schema = pyarrow.schema(fields | {"images": pyarrow.list_(pyarrow.binary())})

    def rows() -> Any:
        made = number = 0
        while made < megabytes * 10**6:
            picture = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(picture, "png")
            ids = draw.integers(0, 1000, 300).tolist()
            made, number = made + len(picture.getvalue()), number + 1
            yield {"id": f"r{number}", "input_ids": ids, "labels": ids, "images": [picture.getvalue()]}

    kept = examples.write(folder / "train.parquet", rows(), schema)
    (folder / "labels.json").write_text(json.dumps({"splits": {"train": {"rows_kept": kept}}}))
    made = {name: kind() for name, kind in manifest.SHAPE.items()} | {"schema": manifest.SCHEMA}
    manifest.write(folder, made | {"outputs": manifest.describe_files(folder)})


def read(folder: Path, way: str) -> dict[str, Any]:
    """Two epochs over the rows in this process."""
    from datasets import Dataset

    from sft.data.read import pictures

    before, started = status(), time.monotonic()
    if way == "in memory":
        import pyarrow.parquet
        from datasets.table import InMemoryTable

        rows = Dataset(InMemoryTable(pyarrow.parquet.read_table(folder / "train.parquet")))
    else:
        from sft.training.token_rows import load_rows, prepare_rows

        prepare_rows(folder, "train", print)
        rows = load_rows(folder, "train")
    made: dict[str, Any] = {"rows": len(rows), "seconds_to_open": round(time.monotonic() - started, 2)}
    draw, order = random.Random(0), list(range(len(rows)))
    for epoch in ("first", "second"):
        draw.shuffle(order)
        for what in ("rows", "rows and pictures"):
            cpu, wall = time.process_time(), time.monotonic()
            for number in order:
                row = rows[number]
                if what != "rows":
                    pictures.decode(row["images"][0])
            made[f"{epoch} epoch, {what}"] = {
                "cpu_ms_per_row": round(1000 * (time.process_time() - cpu) / len(rows), 3),
                "wall_ms_per_row": round(1000 * (time.monotonic() - wall) / len(rows), 3),
            }
    after = status()
    return made | {f"{name}_mb": round((after[name] - before[name]) / 1000) for name in ("RssAnon", "RssFile")}


def status() -> dict[str, int]:
    """Memory of this process in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Rss", "VmHWM"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="where the rows are made, and found again")
    parser.add_argument("--way", choices=("in memory", "mapped"), help="measure one way in this process")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    if options.way:
        print(json.dumps(read(folder, options.way)))
        return
    folder.mkdir(exist_ok=True)
    if not (folder / "manifest.json").exists():
        make_tokens(folder, options.megabytes)
    found = {"bytes": (folder / "train.parquet").stat().st_size}
    for way in ("mapped", "in memory", "mapped", "in memory"):
        command = [sys.executable, __file__, "--folder", str(folder), "--way", way]
        found.setdefault(way, []).append(json.loads(subprocess.check_output(command, text=True).splitlines()[-1]))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
