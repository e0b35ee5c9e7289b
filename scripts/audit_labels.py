"""Judges the labels of tokenised rows, and looks for control tokens in the rows that will be asked.

Makes `labels.html`, a page with the counts, the thresholds and rows with their mask in colour, and `audit.json` from
a directory of tokens and the test splits. When a threshold is not held nothing is made; the page is then
`labels-failed.html`.

By hand: python scripts/audit_labels.py results/label_audits/digits-1a2b3c4d
"""

import json

from sft.config.label_audit_settings import LabelAudit
from sft.runtime.stage import Stage, StageError, run_stage

FAILED = "labels-failed.html"
IDS_NAMED = 5


def make(stage: Stage) -> None:
    from sft.data.audit import label_page, label_verdict

    labels = json.loads((stage.input("tokens") / "labels.json").read_text(encoding="utf-8"))
    found = label_verdict.judged(labels, stage.settings(LabelAudit))
    tests = {name: _control_tokens(directory, labels) for name, directory in stage.inputs("test-").items()}
    page = label_page.page(f"Labels: {stage.id}", labels, found, tests)
    (stage.directory / FAILED).unlink(missing_ok=True)
    complaints = [label_verdict.complaint(found)] if not all(row["passed"] for row in found) else []
    complaints += [
        f"{name}: {test['rows_with_control_tokens']} of {test['rows']} test rows hold control tokens in their own text "
        f"(ids {', '.join(test['ids'])}). Mend the rows, or set training.control_tokens to neutralise or allow"
        for name, test in tests.items()
        if test["refused"]
    ]
    if complaints:
        (stage.directory / FAILED).write_text(page, encoding="utf-8")
        raise StageError("\n  ".join([*complaints, f"The whole report: {stage.directory / FAILED}"]))
    made = {"found": found, "tests": tests, "counts": label_verdict.counts(labels)}
    stage.output("audit.json").write_text(json.dumps(made, indent=1) + "\n")
    stage.output("labels.html").write_text(page, encoding="utf-8")
    stage.record(**{f"{row['split']}.{row['threshold']}": row["found"] for row in found})
    train = labels["splits"]["train"]
    share = train["supervised_tokens"] / train["tokens"] if train["tokens"] else 0
    stage.summary(f"{train['rows_kept']} of {train['rows']} train rows, {share:.1%} of their tokens are learned")


def _control_tokens(directory, labels) -> dict:
    from sft.data.read import examples
    from sft.data.tokens.control_tokens import ControlTokens

    tokens, rows, count, ids = ControlTokens(labels["control_tokens"]), 0, 0, []
    columns = ["id", "system", "prompt", "completion", "messages", "tools"]
    for row in examples.rows(directory / "test.parquet", columns):
        rows += 1
        if tokens.found(row):
            count += 1
            ids += [row["id"]] if len(ids) < IDS_NAMED else []
    refused = bool(count) and labels.get("control_tokens_policy", "refuse") == "refuse"
    return {"rows": rows, "rows_with_control_tokens": count, "ids": ids, "refused": refused}


if __name__ == "__main__":
    run_stage(make, __doc__)
