"""The plan of the data: from the files as published to examples, splits and their audits.

The half of sft/planning/planner.py that knows no model.
"""

import re
from pathlib import Path
from typing import Any

from sft.config.audit_settings import Benchmark, Embedding
from sft.config.dataset import Dataset, Mix, Reading
from sft.config.fields import key_fields
from sft.config.source import Source, as_read
from sft.config.study import Study, StudyCell
from sft.planning.node import Node
from sft.planning.plan import Plan

COLUMN_FIELDS = (
    "prompt_key",
    "choice_key",
    "answer_key",
    "label_key",
    "completion_key",
    "image_keys",
    "id_key",
    "group_key",
    "text_key",
    "messages_key",
    "tools_key",
    "system_key",
)


class DataPlanner:
    """Adds the nodes of data sets to a plan; a node that is planned already is given again."""

    def __init__(self, study: Study, plan: Plan):
        self.study = study
        self.plan = plan
        self._divided: dict[str, Node] = {}  # by name: a study of a thousand seeds asks five thousand times

    def download(self, published: Source) -> Node:
        source = key_fields(published)
        name = source_label(source)
        return self.plan.add(
            Node(
                "download_dataset",
                name,
                {"source": as_read(published)},
                {"source": source},
            )
        )

    def examples(self, dataset: Dataset) -> Node:
        downloaded = self.download(dataset.source)
        name = source_label(key_fields(dataset.source))
        own = key_fields(dataset)
        settings = key_fields(Reading.part_of(dataset))
        settings["columns"] = {key: own[key] for key in COLUMN_FIELDS if key in own}
        if "columns" in own:
            settings["renamed"] = own["columns"]
        label = name if dataset.image_transform == "none" else f"{name}-{dataset.image_transform}"
        inputs = {"source": downloaded}
        return self.plan.add(Node("prepare_dataset", label, settings, settings, inputs))

    def splits(self, reference: str | Mix) -> Node:
        if isinstance(reference, Mix):
            parts = {name: self.splits(name) for name in reference.mix}
            counts = list(reference.mix.values())
            own = {"counts": counts, "mix_seed": reference.seed}
            rows = {} if reference.rows is None else {"rows": reference.rows}
            own |= rows
            # The script is told the names that the file uses; the key knows the parts by what they are.
            config = {"mix": dict(reference.mix), "mix_seed": reference.seed, **rows}
            label = "mix-" + "-".join(node.label for node in parts.values())
            inputs = {f"part-{i}": node for i, node in enumerate(parts.values())}
            return self.plan.add(Node("split_dataset", label, config, own, inputs))
        if reference not in self._divided:
            self._divided[reference] = self._divide(self.study.datasets[reference])
        return self._divided[reference]

    def _divide(self, dataset: Dataset) -> Node:
        examples = self.examples(dataset)
        rule = key_fields(dataset.split)
        own = {"split": rule}
        inputs = {"dataset": examples}
        config: dict[str, Any] = own
        if rule.get("column") or rule.get("stratify_by", "answer") != "answer":
            # Columns that no canonical row has are read from the published files again, row by row.
            inputs |= {"source": examples.inputs["source"]}
            config = {**own, "id_key": dataset.id_key, "renamed": dict(dataset.columns or {})}
        return self.plan.add(Node("split_dataset", examples.label, config, own, inputs))

    def audit(self, train: Node, tests: list[Node], cell: StudyCell) -> Node:
        own = key_fields(cell.content.audit)
        if not any(downloads(train) & downloads(test) for test in tests):
            # Ids and groups of data sets that have no source in common are names that happen to be the same.
            limits = cell.content.audit.limits.model_dump()
            own["limits"] = limits | {kind: "report" for kind in ("id", "group") if limits[kind] is None}
        inputs = {"train": train} | {f"test-{i}": node for i, node in enumerate(tests)}
        if cell.content.evaluation.split == "validation":
            # Those of the data set trained on are compared in any case.
            own_rows = {train.directory, train.inputs.get("part-0", train).directory}
            others = [node for node in tests if node.directory not in own_rows]
            inputs |= {f"validation-{i}": node for i, node in enumerate(others)}
        config = dict(own)
        if benchmarks := own.pop("benchmarks", {}):
            named = cell.content.audit.benchmarks
            inputs |= {f"benchmark-{i}": self._benchmark(one) for i, one in enumerate(named.values())}
            # The script is told the names that the file uses; the key knows benchmarks by what they are.
            settings = [{key: one[key] for key in ("text_keys", "limits")} for one in benchmarks.values()]
            own["benchmarks"] = settings
            config["benchmarks"] = dict(zip(benchmarks, settings, strict=True))
        if embedding := cell.content.audit.embedding:
            inputs |= self._embeddings(embedding, inputs)
            # Which encoder it is, the inputs say.
            own["embedding"] = config["embedding"] = {"similarity": embedding.similarity}
        return self.plan.add(Node("audit_splits", train.label, config, own, inputs))

    def _benchmark(self, benchmark: Benchmark) -> Node:
        if benchmark.source is not None:
            return self.download(benchmark.source)
        assert benchmark.dataset is not None, "one of the two is given (Benchmark)"
        return self.splits(benchmark.dataset)

    def _embeddings(self, embedding: Embedding, compared: dict[str, Node]) -> dict[str, Node]:
        """The vectors of all divided data sets that an audit compares, as inputs of it."""
        source = {key: value for key, value in key_fields(embedding).items() if key != "similarity" and value}
        settings = {"source": source}
        label = source_label(source)
        encoder = self.plan.add(Node("download_encoder", label, settings, settings))
        made = {}
        for name, node in compared.items():
            if node.rule != "split_dataset":
                continue
            own = {"splits": ["train", "validation"] if name == "train" else [name.rpartition("-")[0]]}
            own = {"splits": ["test"]} if name.startswith("benchmark-") else own
            inputs = {"splits": node, "encoder": encoder}
            made[f"meaning-{name}"] = self.plan.add(Node("embed_rows", node.label, own, own, inputs))
        return made

    def label_audit(self, tokens: Node, tests: list[Node], cell: StudyCell) -> Node:
        own = key_fields(cell.content.labels)
        inputs = {"tokens": tokens} | {f"test-{i}": node for i, node in enumerate(tests)}
        return self.plan.add(Node("audit_labels", tokens.label, own, own, inputs))


def downloads(node: Node) -> set[str]:
    """The sources that a node is made from."""
    above = set().union(*(downloads(one) for one in node.inputs.values()))
    return above | {node.directory} if node.rule == "download_dataset" else above


def source_label(source: dict[str, Any]) -> str:
    """What a reader calls a source: its own name, without version, path and suffix."""
    if "markdown" in source:
        return "markdown"
    if packed := source.get("wheel") or source.get("npm"):
        return source.get("derive") or re.split("==|(?<=.)@", packed)[0]
    if repository := source.get("hub"):
        return repository.rpartition("/")[2]
    if files := source.get("download"):
        return source.get("name") or Path(files[0]["name"]).stem
    return source.get("name") or source.get("initialise") or Path(source["path"]).stem
