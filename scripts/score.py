"""Scores of an evaluation's predictions: accuracies with numerator, denominator, interval and errors.

Reads predictions.parquet of a finished `predict` (or `fit_baseline`) and the test splits it was asked on; writes
scores.parquet, one row per data set, step (0 is the base model) and metric, and right.parquet: which answers are right,
row by row, for paired tests. Three metrics for multiple choice:
accuracy_strict (what is said is the whole target, compared alike on both sides), accuracy_lenient (it names the right
letter) and accuracy_likelihood (the right letter is the likeliest; a tie is wrong). Free completions have the strict
one (tool calls are compared as calls; what was reasoned does not count) and accuracy_token (which of the target's
tokens are the likeliest, given all before them), text without roles the latter alone. A row that failed is wrong and
counted in `errors`; a missing one is an error.

    python scripts/score.py results/runs/digits-lora-1a2b3c4d/evaluations/5e6f7a8b/scores
"""

from sft.config.nodes import ScoreSettings
from sft.evaluation.scoring import LENIENT, METRICS, counted, marks
from sft.runtime import manifest
from sft.runtime.stage import Stage, StageError, run_stage

PREDICTED = ["dataset", "step", "id", "answer", "gold_text", "raw_text", "choice_log_likelihoods", "error"]
SAID = ["said", "called", "gold_said", "gold_called", "is_target"]
TARGETS = ["target_tokens", "target_right"]
DECLARED = ["id", "answer", "prompt", "completion", "choices"]


def make(stage: Stage) -> None:
    import pyarrow as pa

    from sft.data.read.tables import read_rows, write_rows

    predicted = stage.input("predictions")
    settings, splits = stage.settings(ScoreSettings), stage.inputs("test-")
    datasets = list(settings.datasets)
    asked = manifest.read(predicted)["config"]["datasets"]
    if datasets != asked or len(datasets) != len(splits):
        raise StageError(f"{stage.directory}: {predicted} asked {asked}, but {datasets} are to be scored")
    rows: dict[str, list[dict]] = {name: [] for name in datasets}
    for row in read_rows(predicted / "predictions.parquet", [*PREDICTED, *SAID, *TARGETS]):
        if row["dataset"] not in rows:
            raise StageError(f"{predicted}: predictions on {row['dataset']!r}, which was not asked for")
        rows[row["dataset"]].append(row)

    scores, marked = [], []
    for index, name in enumerate(datasets):
        path = splits[f"test-{index}"] / f"{settings.split}.parquet"
        declared = read_rows(path, DECLARED)
        try:
            of_dataset = marks(name, rows[name], declared)
        except ValueError as error:
            raise StageError(f"{error}. Run predict again for {predicted}") from None
        if not of_dataset:
            raise StageError(f"{predicted}: no predictions on {name}. Run predict again")
        scores += counted(name, of_dataset)
        marked += of_dataset
    steps = {name: sorted({score["step"] for score in scores if score["dataset"] == name}) for name in datasets}
    if len({tuple(found) for found in steps.values()}) != 1:
        raise StageError(f"{predicted}: the data sets were predicted at different steps: {steps}. Run predict again")

    schema = pa.schema(
        [
            ("dataset", pa.string()),
            ("step", pa.int64()),
            ("metric", pa.string()),
            ("numerator", pa.int64()),
            ("denominator", pa.int64()),
            ("value", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
            ("errors", pa.int64()),
            ("confidence", pa.float64()),
            ("method", pa.string()),
        ]
    )
    write_rows(scores, schema, stage.output("scores.parquet"))
    truths = [(metric, pa.bool_()) for metric in (*METRICS, "error")]
    counts = [(name, pa.int64()) for name in TARGETS]
    answers = pa.schema([("dataset", pa.string()), ("step", pa.int64()), ("id", pa.string()), *truths, *counts])
    write_rows(marked, answers, stage.output("right.parquet"))

    last = max(score["step"] for score in scores)
    # The first metric that a data set has; text without roles has that of its tokens alone.
    first = {score["dataset"]: score for score in reversed(scores) if score["step"] == last}
    shown = [
        f"{name} {score['metric'].removeprefix('accuracy_')} {score['value']:.1%} "
        f"({score['numerator']}/{score['denominator']})"
        for name, score in sorted(first.items())
    ]
    failed = sum(row["error"] for row in marked)
    stage.record(
        rows=sum(len(found) for found in rows.values()),
        steps=next(iter(steps.values())),
        errors=failed,
        lenient_at_last_step={s["dataset"]: s["value"] for s in scores if s["step"] == last and s["metric"] == LENIENT},
    )
    stage.summary(f"step {last}: {', '.join(shown)}" + (f"; {failed} rows failed" if failed else ""))


if __name__ == "__main__":
    run_stage(make, __doc__)
