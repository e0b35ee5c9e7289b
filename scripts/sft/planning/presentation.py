"""What a reader sees of an experiment, planned: its ledger, its table, its figures."""

import json
from pathlib import Path
from typing import Any

from sft.config.dataset import Mix
from sft.config.fields import figure_name
from sft.config.study import StudyExperiment
from sft.planning.node import Node
from sft.planning.plan import Plan, PlannedBaseline, Run
from sft.runtime.canonical import canonical
from sft.runtime.manifest import file_digest

# The figures of every experiment, drawn by scripts/plot_<name>.py. `environments` and `rows` are for some: see below.
FIGURES = ("accuracy", "loss", "grad_norm", "comparison")


def presented(
    plan: Plan,
    experiment: StudyExperiment,
    runs: list[Run],
    baselines: list[PlannedBaseline],
    datasets: dict[str, str],
) -> dict[str, Node]:
    """Add the ledger, table and figures of `runs` and `baselines` to `plan`, and return them by name.

    `datasets` gives the ids of test sets the names that the file uses, in its order.
    """
    shown_nodes: dict[str, Node] = {}
    frame, name = experiment.frame, experiment.name
    place = {"experiment": name}
    cells = [
        {
            "cell": run.cell,
            "seed": run.seed,
            "run": run.train.id,
            "run_digest": run.train.digest,
            "scores": run.scores.directory,
            "settings": _flat(run.settings),
        }
        for run in runs
    ]
    inputs: dict[str, Node] = {}
    for i, run in enumerate(runs):
        inputs |= {f"run-{i}": run.train, f"scores-{i}": run.scores}
    inputs |= {f"audit-{i}": run.audit for i, run in enumerate(runs)}
    inputs |= {f"labels-{i}": run.labels for i, run in enumerate(runs)}
    for i, baseline in enumerate(baselines):
        inputs |= {f"baseline-{i}": baseline.fitted, f"baseline-scores-{i}": baseline.scores}
    split = next(iter(experiment.cells.values())).content.evaluation.split
    # What an experiment does not have is left out, so that ledgers and figures without it stay as they are.
    besides: dict[str, Any] = {} if split == "test" else {"split": split}
    if baselines:
        besides["baselines"] = [{"name": one.name, "label": one.label, "cells": list(one.cells)} for one in baselines]
    collected = {"experiment": name, "cells": cells, "datasets": datasets, **besides}
    ledger = plan.add(Node("collect_metrics", name, collected, collected, inputs, place=place))
    shown = {
        "experiment": name,
        "title": frame.title or name,
        "description": frame.description or "",
        "chance": frame.chance,
        "metric": frame.metric,
        "cells": list(experiment.cells),
        "datasets": list(datasets.values()),
        "seeds": list(frame.seeds),
        **besides,
    }
    asked = {(run.train.inputs["model"].digest, canonical(run.scores.inputs["predictions"].own)) for run in runs}
    if len(asked) == 1 < len(runs):
        shown["one_base"] = True
    shown_nodes[f"ledger-{name}"] = ledger
    shown_nodes[f"table-{name}"] = plan.add(
        Node("tabulate_results", name, shown, shown, {"ledger": ledger}, place=place)
    )
    if frame.expected is not None:
        config = {key: shown[key] for key in ("experiment", "cells", "seeds")} | {"expected": frame.expected}
        plan.add(Node("compare_expected", name, config, config, {"ledger": ledger}, place=place))
    compared = _environments(experiment)
    figures = dict.fromkeys(FIGURES, shown) | ({"environments": {**shown, "compared": compared}} if compared else {})
    if lines := _rows(experiment):
        figures["rows"] = {**shown, "lines": lines}
    for kind, config in figures.items():
        figure = Node(f"plot_{kind}", name, config, config, {"ledger": ledger}, place=place | {"figure": kind})
        shown_nodes[f"figure-{name}-{kind}"] = plan.add(figure)
    for script in frame.figures:
        kind = figure_name(script)
        # What it draws is in its bytes; where it lies is not.
        own = {**shown, "script": file_digest(Path(script))}
        config = {**shown, "figure": kind, "script": script, "sha256": own["script"]}
        figure = Node("plot_own", name, config, own, {"ledger": ledger}, place=place | {"figure": kind})
        shown_nodes[f"figure-{name}-{kind}"] = plan.add(figure)
    return shown_nodes


def _environments(experiment: StudyExperiment) -> list[list[dict[str, str]]]:
    """Cells that differ in their environment alone: groups of two or more `{cell, environment}`."""
    groups: dict[str, list[dict[str, str]]] = {}
    for label, cell in experiment.cells.items():
        others = {key: value for key, value in cell.settings.items() if key != "environment"}
        environment = cell.content.environment or "the project's"
        groups.setdefault(canonical(others), []).append({"cell": label, "environment": environment})
    return [group for group in groups.values() if len(group) > 1]


def _rows(experiment: StudyExperiment) -> list[dict[str, Any]]:
    """Cells that differ in how many rows they are trained on, as lines: `{name, points: [[rows, cell], ...]}`.

    None where a cell has no such line, or where two cells of a line have equally many rows.
    """
    lines: dict[str, dict[str, Any]] = {}
    for label, cell in experiment.cells.items():
        mix = cell.content.dataset
        if not isinstance(mix, Mix) or (rows := mix.counted()) is None:
            return []
        others = cell.content.model_dump(mode="json", exclude={"dataset"}) | {"from": list(mix.mix), "seed": mix.seed}
        changes = {key: value for key, value in _flat(cell.settings).items() if not key.startswith("dataset")}
        name = ", ".join(map(str, changes.values())) or cell.content.method
        line = lines.setdefault(canonical(others), {"name": name, "points": []})
        line["points"].append([rows, label])
    found = list(lines.values())
    numbers = [[rows for rows, _ in line["points"]] for line in found]
    distinct = all(len(set(rows)) == len(rows) > 1 for rows in numbers)
    return found if distinct and len({line["name"] for line in found}) == len(found) else []


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (str, int, float, bool)) else json.dumps(value)
    return flat
