"""Turns what rows ask into vectors, by which an audit finds rows that say nearly the same in other words.

Makes `<split>.npy` (float16, one vector of length 1 a row) for some splits of a divided data set with a sentence
encoder. Rows with pictures have zeros: one question about many pictures is no leak.

By hand: python scripts/embed_rows.py results/embeddings/digits-1a2b3c4d
"""

from sft.runtime.stage import Stage, run_stage


def make(stage: Stage) -> None:
    import numpy as np

    from sft.data.audit import split_keys
    from sft.data.split import row_keys
    from sft.models.encoder import Encoder

    encoder = Encoder(stage.input("encoder") / "model")
    rows = {}
    for split in stage.config["splits"]:
        made = [np.zeros((0, encoder.size), np.float16)]
        for batch, _ in split_keys.batches(stage.input("splits") / f"{split}.parquet"):
            made.append(encoder.encode(["" if row["images"] else row_keys.question(row) for row in batch]))
        vectors = np.concatenate(made)
        np.save(stage.output(f"{split}.npy"), vectors)
        rows[split] = len(vectors)
        stage.say(f"{split}: {len(vectors)} rows")
    stage.record(rows=rows, longer_than_the_encoder_reads=encoder.truncated, max_length=encoder.max_length)
    stage.summary(f"{sum(rows.values())} rows, {encoder.truncated} of them longer than {encoder.max_length} tokens")


if __name__ == "__main__":
    run_stage(make, __doc__)
