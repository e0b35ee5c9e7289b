"""The embedded data set: scikit-learn's handwritten digits as multiple-choice questions about a picture.

Published in the shape of Robo2VLM (train and test shards in one directory; a question, choices as the text of
a Python list, a 0-based index as the answer, a picture), so that the default exercises the road of real data.
The choices always stand in the order A 0 ... J 9, so the letter is the class: this is digit classification in
the form of a vision-language task. With choices shuffled per row a model of this size learns nothing.
"""

from pathlib import Path
from typing import Any

TEST_ROWS = 360
TRAIN_SHARDS = 2
QUESTION = "Which digit is shown?"
CHOICES = [str(digit) for digit in range(10)]
LICENCE = "CC BY 4.0 (UCI Machine Learning Repository, Optical Recognition of Handwritten Digits)"


def publish(directory: Path) -> dict[str, Any]:
    """Write the parquet shards to a new `directory`; returns rows per file and how many pictures are distinct.

    Pictures are 16 x 16 RGB PNG: each of the 8 x 8 pixels doubled, the values 0 to 16 scaled to 0 to 255.
    Test rows are drawn once, stratified by digit, with seed 0. Ids are "digits-<index in scikit-learn's array>".
    """
    import numpy
    import pyarrow
    import pyarrow.parquet
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from sft.data.read import pictures

    digits = load_digits()
    grey = numpy.rint(digits.images * (255 / 16)).astype(numpy.uint8).repeat(2, axis=1).repeat(2, axis=2)
    train, test = train_test_split(numpy.arange(len(grey)), test_size=TEST_ROWS, stratify=digits.target, random_state=0)
    shards = {
        f"train-{i:05d}-of-{TRAIN_SHARDS:05d}.parquet": rows
        for i, rows in enumerate(numpy.array_split(numpy.sort(train), TRAIN_SHARDS))
    } | {"test-00000-of-00001.parquet": numpy.sort(test)}
    schema = pyarrow.schema(
        {
            "id": pyarrow.string(),
            "question": pyarrow.string(),
            "choices": pyarrow.string(),
            "correct_answer": pyarrow.int64(),
            "image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        }
    )
    directory.mkdir()
    for name, rows in shards.items():
        table = [
            {
                "id": f"digits-{index:04d}",
                "question": QUESTION,
                "choices": str(CHOICES),
                "correct_answer": int(digits.target[index]),
                "image": {
                    "bytes": pictures.png(Image.fromarray(grey[index]).convert("RGB")),
                    "path": f"digits-{index:04d}.png",
                },
            }
            for index in map(int, rows)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table, schema=schema), directory / name)
    return {
        "rows": {name: len(rows) for name, rows in shards.items()},
        "pictures": len(grey),
        "distinct_pictures": len({image.tobytes() for image in grey}),
    }
