"""What is asked besides the runs, planned: a published base model once for all its runs, baselines, and scores."""

from dataclasses import dataclass
from typing import Any

from sft.config.baseline import Baseline
from sft.config.fields import key_fields
from sft.config.study import StudyExperiment
from sft.planning.node import Node
from sft.planning.plan import Plan, PlannedBaseline

# Of the settings of predictions: what says nothing about how the base model is asked.
OF_RUNS = ("steps", "prompts_stored")


@dataclass(frozen=True)
class Fitted:
    """What a cell's models are trained on and asked about: its divided data set, its tests, its audit."""

    cell: str
    train: Node
    tests: dict[str, Node]
    split: str
    audit: Node


def scores_of(predictions: Node, tests: dict[str, Node]) -> Node:
    """The scores of predictions on `tests`."""
    asked: dict[str, Any] = {key: predictions.config[key] for key in ("datasets", "split") if key in predictions.config}
    inputs = {"predictions": predictions} | tests
    return Node("score", "scores", asked, {}, inputs, place={"predictions": predictions.path})


def base_answers(train: Node, settings: dict[str, Any], tests: dict[str, Node], execution: dict[str, Any]) -> Node:
    """What the model that `train` starts from answers as it is, asked with the `settings` of the run's predictions."""
    own = {key: value for key, value in settings.items() if key not in OF_RUNS}
    own |= {key: train.config[key] for key in ("model_step",) if key in train.config}
    return Node(
        "ask_base",
        "-".join([train.inputs["processor"].label, *(node.label for node in tests.values())]),
        {**own, "datasets": [node.id for node in tests.values()]},
        own,
        {"model": train.inputs["model"], "processor": train.inputs["processor"]} | tests,
        execution=execution,
        joins="predict",
    )


def baselines(plan: Plan, experiment: StudyExperiment, cells: list[Fitted]) -> list[PlannedBaseline]:
    """Add the baselines of an experiment and their scores to `plan`.

    Cells that are trained on the same rows and asked about the same ones share a baseline. It is called as in the file
    where all cells do, and `<name>_<cell>` after the first such cell otherwise.
    """
    made = []
    for name, baseline in experiment.frame.baselines.items():
        found: dict[str, tuple[Node, list[str]]] = {}
        for cell in cells:
            node = plan.add(_baseline(baseline, cell))
            found.setdefault(node.directory, (node, []))[1].append(cell.cell)
        for node, labels in found.values():
            tests = {key: above for key, above in node.inputs.items() if key != "train"}
            label = name if len(found) == 1 else f"{name}_{labels[0]}"
            made.append(PlannedBaseline(name, label, node, plan.add(scores_of(node, tests)), tuple(labels)))
    return made


def _baseline(baseline: Baseline, cell: Fitted) -> Node:
    own = key_fields(baseline) | ({} if cell.split == "test" else {"split": cell.split})
    return Node(
        "fit_baseline",
        f"{baseline.method}-{cell.train.label}",
        {**own, "datasets": [node.id for node in cell.tests.values()]},
        own,
        {"train": cell.train} | cell.tests,
        gates={f"audit-{cell.audit.id}": cell.audit},
    )
