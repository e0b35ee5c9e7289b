"""The metrics stream of a run: `metrics.jsonl`, one JSON object a line, appended while the run goes on.

A row is identified by (step, split). A resumed run writes some steps again; the last row of an identity
counts. A killed writer may leave a torn last line, which readers skip and the next writer cuts off. Imports
nothing heavy.
"""

import json
import os
from pathlib import Path
from typing import Any

from sft.runtime.stage import StageError

NAME = "metrics.jsonl"
# What differs between two executions of the same run; everything else must be equal.
EXECUTION_FIELDS = ("attempt", "time", "tokens_per_second", "peak_memory_mib")
# Fields of a row that become metrics of the tidy table, as they are.
PLAIN_METRICS = ("grad_norm", "learning_rate", "epoch", "tokens_seen", "supervised_tokens_seen")
# Metric -> its numerator and denominator fields.
RATIOS = {
    "loss": ("loss_sum", "loss_tokens"),
    "token_accuracy": ("correct_tokens", "loss_tokens"),
}

Key = tuple[int, str]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every row ever written, in order; a torn last line is skipped, any other damage is a StageError."""
    try:
        *whole, torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(whole, 1):
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise StageError(
                f"{path}: line {number} is damaged. Delete the file and the checkpoints directory to start over"
            ) from None
    del torn  # an unfinished line has no newline after it
    return rows


def read(path: Path, up_to: int | None = None) -> dict[Key, dict[str, Any]]:
    """The rows that count, by (step, split), ordered; only steps up to `up_to` where it is given."""
    rows = {(row["step"], row["split"]): row for row in read_lines(path)}
    return {key: rows[key] for key in sorted(rows) if up_to is None or key[0] <= up_to}


class MetricsStream:
    """The writer. `continue_from` is the step of the checkpoint that the run continues, None for a fresh run."""

    def __init__(self, path: Path, continue_from: int | None, attempt: int):
        self.attempt = attempt
        self.replayed = self.replayed_equal = 0
        if continue_from is None:
            path.unlink(missing_ok=True)
        _cut_torn_line(path)
        rows = read(path)
        self.written = {key for key in rows if key[0] <= (continue_from or 0)}
        # Rows beyond the checkpoint will be written again; they tell whether the run repeats itself.
        self._earlier = {key: row for key, row in rows.items() if key not in self.written}
        self._file = path.open("a", encoding="utf-8")

    def append(self, row: dict[str, Any]) -> None:
        """Write one row. StageError when an earlier attempt trained this step on other samples."""
        key = (row["step"], row["split"])
        earlier = self._earlier.pop(key, None)
        if earlier is not None:
            if earlier.get("samples") != row.get("samples"):
                raise StageError(
                    f"step {row['step']}: the samples ({row.get('samples')}) are not those of the attempt before "
                    f"({earlier.get('samples')}). Delete the checkpoints directory to start over"
                )
            self.replayed += 1
            self.replayed_equal += comparable(earlier) == comparable(row)
        line = json.dumps({**row, "attempt": self.attempt}, allow_nan=False) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            error.filename = self._file.name  # a full disk, told with the place
            raise
        self.written.add(key)

    def sync(self) -> None:
        """Make what was written survive a power cut; called before a checkpoint counts on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the fields that may differ between two executions."""
    return {name: value for name, value in row.items() if name not in EXECUTION_FIELDS}


def _cut_torn_line(path: Path) -> None:
    if path.exists():
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def write_tidy(rows: dict[Key, dict[str, Any]], path: Path) -> None:
    """Write the rows as a tidy parquet table: step, split, metric, numerator, denominator, value.

    Holds what repeats when the run is repeated, so speed and memory stay in the stream. Metrics that are no
    ratio have null numerator and denominator.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tidy: dict[str, list[Any]] = {name: [] for name in ("step", "split", "metric", "numerator", "denominator", "value")}

    def add(row: dict[str, Any], metric: str, numerator: float | None, denominator: float | None, value: float):
        for name, cell in zip(tidy, (row["step"], row["split"], metric, numerator, denominator, value), strict=True):
            tidy[name].append(cell)

    for row in rows.values():
        for metric, (above, below) in RATIOS.items():
            if above in row:
                add(row, metric, row[above], row[below], row[above] / row[below])
        for metric in PLAIN_METRICS:
            if metric in row:
                add(row, metric, None, None, row[metric])
    number, text = pa.float64(), pa.string()
    types = [pa.int64(), text, text, number, number, number]
    pq.write_table(pa.table(tidy, schema=pa.schema(list(zip(tidy, types, strict=True)))), path)
