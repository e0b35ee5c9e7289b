"""The plan of configuration files or of an unpacked archive, and what is written before it runs."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.config.reader import DEFAULT_FILE, read_study
from sft.config.strict_yaml import Document, read_yaml
from sft.estimates.run_estimates import require_fit
from sft.planning import freshness
from sft.planning.node import Node, recorded_node
from sft.planning.plan import Plan
from sft.planning.planner import make_plan
from sft.runtime import manifest
from sft.workflow.attached import Attached

RESULTS = "results"
ARCHIVE = Path(RESULTS, "archive.json")


def from_config(files: Sequence[Path], overrides: dict[str, Any]) -> Attached:
    """The plan of configuration files, and what of it is there."""
    return from_documents([read_yaml(path) for path in files or [DEFAULT_FILE]], overrides, RESULTS)


def from_documents(documents: list[Document], overrides: dict[str, Any], results: str) -> Attached:
    """The plan of configurations that were read, and what of it is there below the folder `results`."""
    study = read_study(documents, overrides)
    plan = make_plan(study)
    plan.lie_below(results)
    require_fit(plan)
    states = freshness.examine(plan, study.execution.code_policy)
    return Attached(plan, states, rerun_budget=study.execution.rerun_budget_minutes, results=results)


def from_archive(environment: str, results: str = RESULTS) -> Attached:
    """The plan of an unpacked archive: its figures and tables, drawn from its ledgers; nothing is trained."""
    place = Path(results, ARCHIVE.name)
    archive = json.loads(place.read_text())
    documents = {Path(directory).as_posix(): document for directory, document in archive["nodes"].items()}
    plan = Plan()
    ledgers = {d: recorded_node(d, document, {}) for d, document in documents.items() if d.endswith("/ledger")}
    for directory, document in documents.items():
        inputs = {name: ledgers[above] for name, above in document["inputs"].items() if above in ledgers}
        node = ledgers.get(directory) or recorded_node(directory, document, inputs)
        if not _has_its_script(node):
            continue
        plan.add(node).environment = environment
    plan.lie_below(results)
    given = frozenset(node.directory for node in plan.nodes.values() if node.rule == "collect_metrics")
    states = freshness.examine(plan, given=given)
    print(f"figures are drawn from the archive unpacked at {place}; remove that file to train", file=sys.stderr)
    return Attached(plan, states, archived=True, results=results)


def _has_its_script(node: Node) -> bool:
    """False for an archived figure of its authors' own whose script is not here: an archive brings no code to run."""
    if node.rule != "plot_own":
        return True
    path = Path(node.config["script"])
    found = path.is_file() and manifest.file_digest(path) == node.config["sha256"]
    if not found:
        told = f"is not here, or is another one (sha256 {node.config['sha256'][:12]}…): {node.path} is not drawn"
        print(f"note: {path}, which the archive does not bring, {told}", file=sys.stderr)
    return found


def write_config(node: Node) -> None:
    """Write a node's `config.json` unless it stands there already."""
    path = Path(node.directory, "config.json")
    text = json.dumps(node.document(), indent=1, ensure_ascii=False) + "\n"
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_durably(path, text)


def link_runs(plan: Plan) -> None:
    """`results/experiments/<name>/runs/<cell>/seed-<n>` as relative links to the runs, for people."""
    for experiment, runs in plan.runs.items():
        for run in runs:
            link = Path(run.train.results, "experiments", experiment, "runs", run.cell, f"seed-{run.seed}")
            target = os.path.relpath(run.train.directory, link.parent)
            if link.is_symlink() and str(link.readlink()) == target:
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
