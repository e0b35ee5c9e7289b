"""Turns published files into canonical examples: the prompt, the completion to learn, choices, answer, pictures.

Makes `examples.parquet` (columns: scripts/sft/data/read/examples.py) from the `files/` of a source. Every row must be
read with certainty; otherwise nothing is made and the rows are named.

By hand: python scripts/prepare_dataset.py results/datasets/digits-1a2b3c4d
"""

from sft.config.nodes import PrepareSettings
from sft.runtime.stage import Stage, run_stage


def make(stage: Stage) -> None:
    from sft.data.read import examples
    from sft.data.read.preparation import Preparation

    preparation = Preparation(stage.settings(PrepareSettings), stage.input("source") / "files")
    with examples.Writer(stage.output("examples.parquet")) as writer:
        for example in preparation.examples():
            writer.add(example)
    facts = preparation.facts()
    if facts["rows_with_equal_choices"]:
        stage.say(f"{facts['rows_with_equal_choices']} rows have two choices with the same text")
    stage.record(**facts)
    stage.summary(f"{writer.rows} examples from {len(facts['rows'])} files, {facts['pictures']} pictures")


if __name__ == "__main__":
    run_stage(make, __doc__)
