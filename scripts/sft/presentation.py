"""What a reader sees of an experiment, planned: its ledger, its table, its figures."""

import json
from typing import Any

from sft.canonical import canonical
from sft.config.study import StudyExperiment
from sft.node import Node
from sft.plan import Plan, Run

FIGURES = ("accuracy", "loss", "grad_norm", "comparison")


def presented(plan: Plan, experiment: StudyExperiment, runs: list[Run], datasets: dict[str, str]) -> dict[str, Node]:
    """Add the ledger, table and figures of `runs` to `plan`, and return them by name.

    `datasets` gives the ids of test sets the names that the file uses, in its order.
    """
    shown_nodes: dict[str, Node] = {}
    frame, name = experiment.frame, experiment.name
    folder = f"results/experiments/{name}"
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
    inputs = {}
    for i, run in enumerate(runs):
        inputs |= {f"run-{i}": run.train, f"scores-{i}": run.scores}
    collected = {"experiment": name, "cells": cells, "datasets": datasets}
    ledger = plan.add(Node("collect_metrics", name, collected, collected, inputs, parent=f"{folder}/ledger"))
    shown = {
        "experiment": name,
        "title": frame.title or name,
        "description": frame.description or "",
        "chance": frame.chance,
        "metric": frame.metric,
        "cells": list(experiment.cells),
        "datasets": list(datasets.values()),
        "seeds": list(frame.seeds),
    }
    shown_nodes[f"ledger-{name}"] = ledger
    shown_nodes[f"table-{name}"] = plan.add(
        Node("tabulate_results", name, shown, shown, {"ledger": ledger}, parent=f"{folder}/table")
    )
    compared = _environments(experiment)
    figures = dict.fromkeys(FIGURES, shown) | ({"environments": {**shown, "compared": compared}} if compared else {})
    for kind, config in figures.items():
        shown_nodes[f"figure-{name}-{kind}"] = plan.add(
            Node(f"plot_{kind}", name, config, config, {"ledger": ledger}, parent=f"{folder}/figures/{kind}")
        )
    return shown_nodes


def _environments(experiment: StudyExperiment) -> list[list[dict[str, str]]]:
    """Cells that differ in their environment alone: groups of two or more `{cell, environment}`."""
    groups: dict[str, list[dict[str, str]]] = {}
    for label, cell in experiment.cells.items():
        others = {key: value for key, value in cell.settings.items() if key != "environment"}
        environment = cell.content.environment or "the project's"
        groups.setdefault(canonical(others), []).append({"cell": label, "environment": environment})
    return [group for group in groups.values() if len(group) > 1]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, (str, int, float, bool)) else json.dumps(value)
    return flat
