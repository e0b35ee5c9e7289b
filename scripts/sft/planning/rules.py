"""The table of rules: where the results of each lie, what is in them, and the environment that makes them.

The Snakefiles take their outputs, logs and environments from here, and the planner the directories of what it plans, so
that each path is written once. A rule runs the script of its name; `plot` runs scripts/plot_<figure>.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One rule.

    `directory`: of a result, below results/, with the rule's wildcards. `environment`: envs/<environment>.yaml is what
    its script needs. `outputs`: the main files beside manifest.json; `shown`: those that the report shows. `log`: by
    default the name of the rule.
    """

    name: str
    directory: str
    environment: str
    outputs: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    log: str = ""

    @property
    def log_name(self) -> str:
        """The name of the log, beside the outputs."""
        return self.log or f"{self.name}.log"


_RULES = (
    Rule("make_environment", "environments/{id}", "data", ("packages.json",)),
    Rule("download_dataset", "sources/{id}", "data"),
    Rule("prepare_dataset", "datasets/{id}", "data", ("examples.parquet",)),
    Rule("split_dataset", "splits/{id}", "data", ("train.parquet", "validation.parquet", "test.parquet")),
    Rule("download_encoder", "encoders/{id}", "train"),
    Rule("embed_rows", "embeddings/{id}", "train"),
    Rule("audit_splits", "audits/{id}", "data", ("audit.json",), ("audit.html",)),
    Rule("tokenize_dataset", "tokens/{id}", "train", ("train.parquet", "validation.parquet", "labels.json")),
    Rule("audit_labels", "label_audits/{id}", "data", ("audit.json",), ("labels.html",)),
    Rule("download_model_files", "model_files/{id}", "data"),
    Rule("download_processor", "processors/{id}", "train"),
    Rule("download_model", "models/{id}", "train"),
    Rule("train_model", "runs/{run}", "train", ("metrics.parquet", "effective.json", "kept.json")),
    Rule("convert_checkpoint", "runs/{run}/models/{dtype}", "train", ("parity.json",)),
    Rule("ask_base", "base_answers/{id}", "train", ("predictions.parquet",)),
    Rule("predict", "runs/{run}/evaluations/{evaluation}", "train", ("predictions.parquet",)),
    Rule("fit_baseline", "baselines/{id}", "data", ("predictions.parquet",)),
    # Of a run's evaluation or of a baseline: {predictions} is the directory of either.
    Rule("score", "{predictions}/scores", "data", ("scores.parquet", "right.parquet")),
    Rule(
        "collect_metrics",
        "experiments/{experiment}/ledger",
        "report",
        ("ledger.parquet", "ledger.csv", "paired.csv", "runs.csv", "costs.csv"),
    ),
    Rule("compare_expected", "experiments/{experiment}/expected", "report", ("comparison.csv",)),
    Rule(
        "plot",
        "experiments/{experiment}/figures/{figure}",
        "report",
        ("{figure}.pdf", "{figure}.png", "{figure}.csv"),
        ("{figure}.svg",),
        log="plot_{figure}.log",
    ),
    Rule(
        "tabulate_results",
        "experiments/{experiment}/table",
        "report",
        ("results.md", "results.tex"),
        ("results.csv", "costs.csv"),
    ),
    Rule("archive", "archive", "report", ("archive.tar.gz",)),
)

RULES = {rule.name: rule for rule in _RULES}


def rule_of(script: str) -> Rule:
    """The rule that runs scripts/<script>.py; KeyError where none does."""
    return RULES["plot"] if script.startswith("plot_") else RULES[script]
