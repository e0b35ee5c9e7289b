"""Looks for rows of the evaluated splits and of benchmarks that are in training, and stops above the limits.

Makes `audit.json` and the readable `audit.html` from a training split directory, the directories whose test
rows are evaluated, and the files of benchmarks. When a limit is passed nothing is made; the report is then
`audit-failed.html`.

By hand: python scripts/audit_splits.py results/audits/digits-1a2b3c4d
"""

import json
from pathlib import Path
from typing import Any

from sft.runtime import manifest
from sft.runtime.stage import Stage, StageError, run_stage

FAILED = "audit-failed.html"


def make(stage: Stage) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from sft.data.audit import audit_page, audit_shown, overlaps
    from sft.data.read.benchmark_rows import Benchmark
    from sft.terms.audit_rules import Rules

    rules = Rules(**stage.config)
    paths = {split: stage.input("train") / f"{split}.parquet" for split in ("train", "validation")}
    paths |= {name: directory / "test.parquet" for name, directory in stage.inputs("test-").items()}
    paths |= {name: directory / "validation.parquet" for name, directory in stage.inputs("validation-").items()}
    benchmarks = {}
    for (name, settings), directory in zip(rules.benchmarks.items(), stage.inputs("benchmark-").values(), strict=True):
        if settings.get("text_keys"):
            benchmarks[name] = Benchmark(name, directory / "files", settings["text_keys"])
        else:
            paths[name] = directory / "test.parquet"
    with ThreadPoolExecutor(stage.options.threads) as pool:
        found = overlaps.audit(paths, benchmarks, rules, pool, _vectors(stage, rules.benchmarks))
    identifiers = {
        name: {number: row["id"] for number, row in audit_shown.rows_of(found.of(name), rows, ["id"]).items()}
        for name, rows in overlaps.named_rows(found).items()
    }
    made = overlaps.report(found, rules, identifiers)
    directories = {name: path.parent.as_posix() for name, path in paths.items()}
    directories |= {name: one.directory.as_posix() for name, one in benchmarks.items()}
    page = audit_page.page(
        made,
        audit_shown.shown_pairs(found, rules),
        f"Overlap between splits: {stage.id}",
        directories,
        _left_out([stage.input("train"), *stage.inputs("test-").values()]),
    )
    (stage.directory / FAILED).unlink(missing_ok=True)
    if not made["passed"]:
        (stage.directory / FAILED).write_text(page, encoding="utf-8")
        raise StageError(
            f"splits overlap by more than {made['maximum_overlap']} rows, or than their limits:\n"
            f"  {overlaps.complaint(made)}\nRemove the rows from the source, or allow them with "
            f"{overlaps.allowing(made, rules)}. The whole report: {stage.directory / FAILED}"
        )
    stage.output("audit.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    stage.output("audit.html").write_text(page, encoding="utf-8")
    inside = overlaps.label_facts(made)
    if inside.total():
        stage.say(
            f"inside splits: {inside['repeated']} repeated rows, {inside['contradictory']} contradictory contents"
        )
    reported = {kind: rows for kind, rows in made["largest_by_kind"].items() if rows}
    if reported:
        stage.say(f"within limits or only reported: {', '.join(f'{kind} {n}' for kind, n in reported.items())} rows")
    stage.record(
        rows={name: split.rows for name, split in found.splits.items()},
        largest_overlap=made["largest_overlap"],
        largest_by_kind=made["largest_by_kind"],
    )
    stage.summary(f"largest overlap {made['largest_overlap']} rows ({', '.join((*paths, *benchmarks))})")


def _vectors(stage: Stage, benchmarks: dict[str, Any]) -> dict[str, Path]:
    """The files of the rows' sentence embeddings, by the names of splits and benchmarks; none where none were made."""
    made = {name.removeprefix("meaning-"): path for name, path in stage.inputs("meaning-").items()}
    named = {f"benchmark-{i}": name for i, name in enumerate(benchmarks)}
    found = {
        named.get(name, name): path / f"{'validation' if name.startswith('validation-') else 'test'}.npy"
        for name, path in made.items()
        if name != "train"
    }
    return found | ({split: made["train"] / f"{split}.npy" for split in ("train", "validation")} if made else {})


def _left_out(directories: list[Path]) -> dict[str, dict[str, dict[str, int]]]:
    """What the division of each split reported: `{directory: {reason: {source file or part: rows}}}`."""
    told: dict[str, dict[str, dict[str, int]]] = {}
    for directory in dict.fromkeys(directories):
        facts: dict[str, Any] = (manifest.read(directory) or {"facts": {}})["facts"]
        told[directory.as_posix()] = {
            **facts.get("removed", {}),
            "in no split": facts.get("unused", {}),
            "not taken by the mix": facts.get("parts_left_out", {}),
        }
    return told


if __name__ == "__main__":
    run_stage(make, __doc__)
