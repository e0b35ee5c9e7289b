"""Fits a bag of words on the training rows of a split and asks it the rows that models are asked.

Reads the divided data set that models train on and the test splits; writes predictions.parquet in the form of
`predict`, with step 0 alone, for the same scoring. The strength of the regularisation is chosen on the validation rows;
which one, and what each reached there, is in the manifest.

    python scripts/fit_baseline.py results/baselines/bag_of_words-digits-1a2b3c4d
"""

from pathlib import Path
from typing import Any

from sft.config.nodes import BaselineSettings
from sft.runtime.stage import Stage, StageError, run_stage

COLUMNS = ["id", "prompt", "completion", "choices", "answer"]
TARGETS = ("letter", "letter_and_text", "text")


def make(stage: Stage) -> None:
    from sft.data.read.tables import write_rows
    from sft.evaluation.bag_of_words import BagOfWords, right_share, same_choices
    from sft.evaluation.predictions import SCHEMA

    settings = stage.settings(BaselineSettings)
    train, validation = (_rows(stage.input("train") / f"{part}.parquet") for part in ("train", "validation"))
    asked = [_rows(directory / f"{settings.split}.parquet") for directory in stage.inputs("test-").values()]
    by_class = same_choices([*train, *validation, *(row for rows in asked for row in rows)])
    try:
        models = {c: BagOfWords(train, settings.longest_ngram, c, by_class) for c in settings.c}
    except ValueError as error:
        path = stage.input("train") / "train.parquet"
        raise StageError(
            f"{path}: no bag of words can be fitted: {error}. Take the baseline out of baselines:"
        ) from None
    reached = {c: right_share(model, validation) for c, model in models.items()}
    best = max(settings.c, key=lambda c: reached[c])
    for c, share in reached.items():
        stage.say(f"c {c:g}: {share:.1%} of {len(validation)} validation rows{', chosen' if c == best else ''}")
    target = _target(train)
    rows = [
        {"step": 0, "dataset": name, **row}
        for name, of in zip(settings.datasets, asked, strict=True)
        for row in _answers(models[best], of, target)
    ]
    write_rows(rows, SCHEMA, stage.output("predictions.parquet"))
    right = sum(row["parsed"] == row["answer"] for row in rows)
    stage.record(
        rows=len(rows),
        training_rows=len(train),
        c=best,
        chosen_on="validation",
        validation_rows=len(validation),
        validation_accuracy={f"{c:g}": share for c, share in reached.items()},
        features=len(models[best].words.vocabulary_),
        choices="the same in every row" if by_class else "of each row",
    )
    stage.summary(f"{right}/{len(rows)} right after {len(train)} rows; c {best:g} chosen on {len(validation)} others")


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one split, by id; StageError where they are none, or have no choices."""
    from sft.data.read.tables import read_rows

    rows = sorted(read_rows(path, COLUMNS), key=lambda row: row["id"])
    if not rows:
        raise StageError(f"{path}: no rows; a baseline needs training, validation and test rows")
    if without := next((row["id"] for row in rows if not row["choices"]), None):
        raise StageError(f"{path}, id {without}: no choices; a bag of words can only choose among choices")
    return rows


def _answers(model: Any, rows: list[dict[str, Any]], target: str) -> list[dict[str, Any]]:
    """One row per example; where two choices are equally likely, none is answered."""
    from sft.data.read.multiple_choice import LETTERS, render_target
    from sft.evaluation.scoring import likeliest

    made = []
    for row, values in zip(rows, model.log_likelihoods(rows), strict=True):
        best = likeliest(values)
        letter = "" if best is None else LETTERS[best]
        made.append(
            {
                "id": row["id"],
                "answer": row["answer"],
                "gold_text": row["completion"],
                "raw_text": render_target(letter, row["choices"], target) if letter else "",
                "parsed": letter,
                "choice_log_likelihoods": values,
                "prompt_tokens": 0,
                "error": None,
            }
        )
    return made


def _target(rows: list[dict[str, Any]]) -> str:
    """In which form the rows are answered, so that a baseline's answer is read as a model's; a letter for any other."""
    from sft.data.read.multiple_choice import render_target

    for target in TARGETS:
        if all(row["completion"] == render_target(row["answer"], row["choices"], target) for row in rows):
            return target
    return "letter"


if __name__ == "__main__":
    run_stage(make, __doc__)
