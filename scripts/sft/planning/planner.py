"""From a checked study to its plan: every node, from the files as published to the archive.

Pure bookkeeping: no file is read but the locks that experiments name, nothing heavy is imported.
"""

from typing import Any

from sft.config.fields import key_fields
from sft.config.model import FinishedRun, Initialised, Model, ModelAlternatives, ModelDownload
from sft.config.nodes import TrainSettings
from sft.config.source import as_read
from sft.config.study import Study, StudyCell, StudyExperiment
from sft.config.training_settings import Lora, Optimization, Tokens
from sft.packages.lock_files import lock_digest
from sft.planning.data_plan import DataPlanner, source_label
from sft.planning.evaluation_plan import Fitted, base_answers, baselines, scores_of
from sft.planning.node import Node
from sft.planning.plan import Plan, PlannedBaseline, Run
from sft.planning.presentation import presented
from sft.runtime.canonical import digest
from sft.runtime.installed import VENV_PYTHON
from sft.terms.chat_templates import text_of


def make_plan(study: Study) -> Plan:
    """Everything that the experiments of `study` need."""
    planner = _Planner(study)
    for experiment in study.experiments.values():
        planner.experiment(experiment)
    planner.archive()
    for node in planner.plan.nodes.values():
        node.environment = node.execution.get("environment", study.execution.environment)
        node.code_policy = study.execution.code_policy
    planner.plan.join()
    return planner.plan


class _Planner:
    def __init__(self, study: Study):
        self.study = study
        self.plan = Plan()
        self.data = DataPlanner(study, self.plan)
        self.shown: dict[str, Node] = {}

    def experiment(self, experiment: StudyExperiment) -> None:
        runs = [
            self._run(experiment, cell, seed) for cell in experiment.cells.values() for seed in experiment.frame.seeds
        ]
        self.plan.runs[experiment.name] = runs
        names = list(dict.fromkeys(d for cell in experiment.cells.values() for d in cell.evaluate_on))
        datasets = {self.data.splits(name).id: name for name in names}
        self.shown |= presented(self.plan, experiment, runs, self._baselines(experiment, runs), datasets)

    def archive(self) -> None:
        names = list(self.study.experiments)
        self.plan.add(
            Node(
                rule="archive",
                label="archive",
                config={"experiments": {name: {} for name in names}},
                own={"experiments": names},
                inputs=dict(self.shown),
            )
        )

    # Models

    def _files(self, model: Model) -> dict[str, Node]:
        """The files of a model that is fetched as files, once for its processor and its weights."""
        if not isinstance(model.source, (ModelDownload, ModelAlternatives)):
            return {}
        source = key_fields(model.source)
        config = {"source": as_read(model.source)}
        node = Node("download_model_files", source_label(source), config, {"source": source})
        return {"files": self.plan.add(node)}

    def _processor(self, cell: StudyCell) -> Node:
        """Tokenizer and processor of the base model; a run that starts from a run has those of the first base."""
        while isinstance(cell.content.model, FinishedRun):
            _, cell = self.study.referenced_cell(cell.content.model)
        model = self.study.models[cell.content.model]
        source = key_fields(model.source)
        if isinstance(model.source, Initialised):
            # Width, depth and seed shape the weights only: one tokenizer serves them all.
            source = {"initialise": model.source.initialise}
        own = {"source": source, "chat_template": model.chat_template}
        if model.chat_template and (text := text_of(model.chat_template)) is not None:
            own["template"] = digest(text)
        if model.template_date is not None:
            own["template_date"] = model.template_date
        label = source_label(source)
        files = self._files(model)
        node = Node("download_processor", label, own, own, files)
        return self._add_in_packages_of(cell, node)

    def _base(self, cell: StudyCell, seed: int) -> tuple[Node, dict[str, Any]]:
        """The base model's node, and what the training script needs to find the weights in it."""
        reference = cell.content.model
        if isinstance(reference, FinishedRun):
            experiment, earlier = self.study.referenced_cell(reference)
            chosen = seed if reference.seed is None else reference.seed
            return self._converted(self._train(experiment, earlier, chosen), earlier, "float32"), {"model_step": None}
        model = self.study.models[reference]
        processor = self._processor(cell)
        source = key_fields(model.source)
        if isinstance(model.source, Initialised) and model.source.seed is None:
            source["seed"] = seed
        own = {"source": source}
        label = f"{processor.label}-s{source['seed']}" if "seed" in source else processor.label
        inputs = {"processor": processor} | self._files(model)
        # Weights made from a seed need no network, so the job that trains them can make them.
        joins = "train_model" if isinstance(model.source, Initialised) else ""
        node = Node("download_model", label, own, own, inputs, joins=joins)
        return self._add_in_packages_of(cell, node), {}

    # Packages

    def _add_in_packages_of(self, cell: StudyCell, node: Node) -> Node:
        """Plan a node that loads models: where the cell names a lock, it is made with the packages of that lock."""
        lock = cell.content.environment
        if lock is not None:
            settings = {"lock": f"locks/{lock}.txt", "packages": lock_digest(lock)}
            own = {"packages": settings["packages"]}
            made = self.plan.add(Node("make_environment", lock, settings, own))
            node.own = {**node.own, "environment": own["packages"]}
            node.gates = {**node.gates, "environment": made}
            node.pins = settings["lock"]
            node.execution = {**node.execution, "python": f"{made.directory}/{VENV_PYTHON}"}
        return self.plan.add(node)

    # Runs

    def _tokens(self, splits: Node, processor: Node, cell: StudyCell) -> Node:
        own = key_fields(Tokens.part_of(cell.content.training))
        inputs = {"splits": splits, "processor": processor}
        node = Node("tokenize_dataset", splits.label, own, own, inputs)
        return self._add_in_packages_of(cell, node)

    def _train(self, experiment: StudyExperiment, cell: StudyCell, seed: int) -> Node:
        content = cell.content
        splits, processor = self.data.splits(content.dataset), self._processor(cell)
        base, where = self._base(cell, seed)
        settings = TrainSettings(
            method=content.method,
            lora=content.lora or (Lora() if content.method == "lora" else None),
            seed=seed,
            precision=content.training.precision,
            training=Optimization.part_of(content.training),
        )
        own = key_fields(settings) | where
        tests = [self.data.splits(name) for name in cell.evaluate_on]
        tokens = self._tokens(splits, processor, cell)
        audit, labels = self.data.audit(splits, tests, cell), self.data.label_audit(tokens, tests, cell)
        gates = {f"audit-{audit.id}": audit, f"labels-{labels.id}": labels}
        gates |= {f"audit-{one.id}": one for one in self._audits_of_ancestors(base, tests, cell)}
        inputs = {"tokens": tokens, "model": base, "processor": processor}
        label = f"{processor.label}-{splits.label}-{content.method}-s{seed}"
        return self._add_in_packages_of(
            cell,
            Node(
                "train_model",
                label,
                own,
                own,
                inputs,
                gates=gates,
                execution={**cell.execution.model_dump(), "distributed": content.training.distributed.model_dump()},
            ),
        )

    def _audits_of_ancestors(self, base: Node, tests: list[Node], cell: StudyCell) -> list[Node]:
        """Audits of what the base model, a run of ours, and its bases were trained on: by the rows asked about here."""
        found = []
        while "run" in base.inputs:
            train = base.inputs["run"]
            found.append(self.data.audit(train.inputs["tokens"].inputs["splits"], tests, cell))
            base = train.inputs["model"]
        return found

    def _converted(self, train: Node, cell: StudyCell, dtype: str) -> Node:
        own = {"dtype": dtype}
        config = {"dtype": dtype, "method": train.config["method"], "steps": "all"}
        config |= {key: train.config[key] for key in ("model_step",) if key in train.config}
        inputs = {"run": train, "model": train.inputs["model"], "processor": train.inputs["processor"]}
        return self._add_in_packages_of(
            cell,
            Node(
                "convert_checkpoint",
                dtype,
                config,
                own,
                inputs,
                place={"run": train.id, "dtype": dtype},
                execution=cell.execution.model_dump(),
                joins="predict",
            ),
        )

    def _run(self, experiment: StudyExperiment, cell: StudyCell, seed: int) -> Run:
        train = self._train(experiment, cell, seed)
        evaluation = key_fields(cell.content.evaluation)
        converted = self._converted(train, cell, evaluation.pop("dtype"))
        own = {"steps": evaluation.pop("checkpoints"), **evaluation, "prompts_stored": 3}
        if cell.content.training.control_tokens == "neutralise":
            own["control_tokens"] = "neutralise"
        tests = self._tests(cell)
        # Results name a data set by its content's id; only figures and tables use the names of the file.
        ids = [node.id for node in tests.values()]
        config = {**own, "datasets": ids}
        config |= {key: train.config[key] for key in ("model_step",) if key in train.config}
        inputs = {"converted": converted, "model": train.inputs["model"], "processor": train.inputs["processor"]}
        execution = cell.execution.model_dump()
        asked_once = {}
        if self._is_published(cell):
            settings = own | {"dtype": converted.config["dtype"]}
            node = base_answers(train, settings, tests, execution)
            asked_once["base"] = self._add_in_packages_of(cell, node)
        predictions = self._add_in_packages_of(
            cell,
            Node(
                "predict",
                "-".join(node.label for node in tests.values()),
                config,
                own,
                inputs | tests | asked_once,
                place={"run": train.id},
                gates=train.gates,
                execution=execution,
                # Model, rows and settings are the evaluation's own already.
                implied=frozenset(asked_once),
            ),
        )
        scores = self.plan.add(scores_of(predictions, tests))
        # Of this cell: a run that two experiments share is held to the audits of both.
        evaluated = [self.data.splits(name) for name in cell.evaluate_on]
        audit = self.data.audit(self.data.splits(cell.content.dataset), evaluated, cell)
        labels = self.data.label_audit(train.inputs["tokens"], evaluated, cell)
        return Run(experiment.name, cell.label, seed, train, scores, audit, labels, cell.settings)

    def _baselines(self, experiment: StudyExperiment, runs: list[Run]) -> list[PlannedBaseline]:
        audits = {run.cell: run.audit for run in runs}
        cells = [
            Fitted(
                label, self.data.splits(of.content.dataset), self._tests(of), of.content.evaluation.split, audits[label]
            )
            for label, of in experiment.cells.items()
        ]
        return baselines(self.plan, experiment, cells)

    def _tests(self, cell: StudyCell) -> dict[str, Node]:
        """The divided data sets that a cell's models are asked about, as inputs."""
        return {f"test-{i}": self.data.splits(name) for i, name in enumerate(cell.evaluate_on)}

    def _is_published(self, cell: StudyCell) -> bool:
        """Whether the first model that a cell goes back to was made elsewhere, and not from a seed.

        Those made from a seed are small: importing torch to ask them in a job of their own takes longer than asking.
        """
        while isinstance(cell.content.model, FinishedRun):
            _, cell = self.study.referenced_cell(cell.content.model)
        return not isinstance(self.study.models[cell.content.model].source, Initialised)
