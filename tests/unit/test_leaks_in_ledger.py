"""What an audit found stands in the ledger of every run whose data it looked at.

Tests: sft.reporting.leaks
"""

import json

import made_up_experiment as made
import pyarrow.compute as pc
import pytest

from sft.reporting import ledger


@pytest.fixture
def audited(tmp_path):
    described, inputs = made.write_runs(tmp_path, ("full",), (0, 1))
    audit = tmp_path / "audits/digits-dddd4444"
    audit.mkdir(parents=True)
    tests = {f"test-{i}": tmp_path / f"splits/{name}" for i, name in enumerate(made.IDS)}
    for directory in tests.values():
        directory.mkdir(parents=True)
        made.finish_node(directory, "split_dataset", {}, {})

    def pair(first: str, second: str, **rows: int) -> dict:
        return {"first": first, "second": second, "rows": 200, "overlap": {k: {"rows": n} for k, n in rows.items()}}

    pairs = [
        pair("train", "validation", content=0, ngram=7),
        pair("train", "test-0", content=3, ngram=4),
        pair("validation", "test-0", content=5, ngram=0),
        pair("train", "maths", ngram=1),
    ]
    (audit / "audit.json").write_text(json.dumps({"pairs": pairs}))
    made.finish_node(audit, "audit_splits", {}, tests)
    return described, inputs | {f"audit-{i}": audit for i in range(len(described))}


def test_the_largest_overlap_of_each_kind_is_a_number_of_each_run(audited):
    described, inputs = audited
    names = {next(iter(made.IDS)): "the new ones"}
    table = ledger.collect("e", described, inputs, names)
    found = table.filter(pc.equal(table["split"], "audit")).select(
        ["seed", "dataset", "metric", "step", "numerator", "denominator", "value"]
    )
    of_a_run = [
        ("maths", "overlap_ngram", 0, 1, 200, 0.005),
        ("the new ones", "overlap_content", 0, 5, 200, 0.025),
        ("the new ones", "overlap_ngram", 0, 4, 200, 0.02),
        ("validation", "overlap_content", 0, 0, 200, 0),
        ("validation", "overlap_ngram", 0, 7, 200, 0.035),
    ]
    assert [tuple(row.values()) for row in found.to_pylist()] == [(seed, *row) for seed in (0, 1) for row in of_a_run]


def test_a_ledger_counts_its_gaps_without_the_audits(audited):
    described, inputs = audited
    asked = [list(made.IDS)] * len(described)
    assert ledger.gaps(ledger.collect("e", described, inputs, {}), described, asked) == []
