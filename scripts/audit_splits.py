"""Looks for rows of the evaluated splits that are in training, and stops above the threshold.

Makes `audit.json` and the readable `audit.html` from a training split directory and the directories whose test
rows are evaluated. When the threshold is passed nothing is made; the report is then `audit-failed.html`.

By hand: python scripts/audit_splits.py results/audits/digits-1a2b3c4d
"""

import json

from sft.stage import Stage, StageError, run_stage

FAILED = "audit-failed.html"


def make(stage: Stage) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from sft.data import audit, audit_page

    paths = {split: stage.input("train") / f"{split}.parquet" for split in ("train", "validation")}
    paths |= {name: directory / "test.parquet" for name, directory in stage.inputs("test-").items()}
    others = {name: directory / "validation.parquet" for name, directory in stage.inputs("validation-").items()}
    paths |= others
    with ThreadPoolExecutor(stage.options.threads) as pool:
        splits = {name: audit.read_split(path, name, pool) for name, path in paths.items()}
    made = audit.report(
        splits["train"],
        splits["validation"],
        [splits[name] for name in stage.inputs("test-")],
        stage.config["maximum_overlap"],
        [splits[name] for name in others],
    )
    directories = {name: path.parent.as_posix() for name, path in paths.items()}
    page = audit_page.page(made, f"Overlap between splits: {stage.id}", directories)
    (stage.directory / FAILED).unlink(missing_ok=True)
    if not made["passed"]:
        (stage.directory / FAILED).write_text(page, encoding="utf-8")
        raise StageError(
            f"splits overlap by more than {made['maximum_overlap']} rows:\n  {audit.complaint(made)}\n"
            f"Remove the rows from the source, or allow them with audit.maximum_overlap: {made['largest_overlap']}. "
            f"The whole report: {stage.directory / FAILED}"
        )
    stage.output("audit.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    stage.output("audit.html").write_text(page, encoding="utf-8")
    inside = audit.label_facts(made)
    if inside.total():
        stage.say(
            f"inside splits: {inside['repeated']} repeated rows, {inside['contradictory']} contradictory contents"
        )
    stage.record(rows={name: split.rows for name, split in splits.items()}, largest_overlap=made["largest_overlap"])
    stage.summary(f"largest overlap {made['largest_overlap']} rows ({', '.join(splits)})")


if __name__ == "__main__":
    run_stage(make, __doc__)
