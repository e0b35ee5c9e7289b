"""The bag of words: what it can learn, that it draws nothing at random, and what its stage refuses."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_experiment import finish_node, make_here, write_node

from sft.data.read.examples import SCHEMA
from sft.data.read.multiple_choice import LETTERS
from sft.evaluation.bag_of_words import BagOfWords, right_share, same_choices
from sft.runtime import manifest
from sft.runtime.code import SCRIPTS
from sft.runtime.stage import StageError

WORDS = {"animal": ["paw", "tail", "fur", "claw"], "plant": ["leaf", "root", "stem", "seed"]}
FILLING = ["small", "old", "red", "a", "5"]

REFUSE = """
import sys
class NotHere:
    def find_spec(name, path=None, target=None):
        if name in ("torch", "pandas", "transformers"):
            raise ImportError(f"{name} is not for baselines")
sys.meta_path.insert(0, NotHere)
"""


def row(n: int, choices: list[str], label: str, prompt: str) -> dict:
    letter = LETTERS[choices.index(label)]
    columns = dict.fromkeys(SCHEMA.names)
    return columns | {
        "id": f"row-{n:03}",
        "source_file": "train.jsonl",
        "prompt": prompt,
        "completion": label,
        "choices": choices,
        "answer": letter,
        "images": [],
    }


def categories(count: int, first: int = 0) -> list[dict]:
    """The word decides; the order of the choices, and so the right letter, does not follow the category."""
    random = np.random.default_rng([7, first])
    rows = []
    for n in range(first, first + count):
        label = list(WORDS)[n % 2]
        choices = ["animal", "plant"] if random.random() < 0.5 else ["plant", "animal"]
        prompt = f"{random.choice(FILLING)} {random.choice(WORDS[label])} {random.choice(FILLING)}"
        rows.append(row(n, choices, label, prompt))
    return rows


def own_choices(count: int, first: int = 0) -> list[dict]:
    """Each row has choices of its own, and the right one repeats a word of the question."""
    random = np.random.default_rng([8, first])
    rows = []
    for n in range(first, first + count):
        numbers = random.permutation(900)[:4] + 100
        choices = [f"number {number}" for number in numbers]
        rows.append(row(n, choices, choices[n % 4], f"which one is {numbers[n % 4]} or what"))
    return rows


def test_words_decide_between_categories_whatever_the_letters():
    train, test = categories(60), categories(40, 100)
    assert same_choices([*train, *test])
    assert right_share(BagOfWords(train, 1, 10.0, by_class=True), test) == 1
    assert len({row["answer"] for row in test if row["completion"] == "animal"}) == 2


def test_choices_of_each_row_are_judged_by_their_words_and_those_of_the_question():
    train, test = own_choices(80), own_choices(40, 500)
    assert not same_choices([*train, *test])
    model = BagOfWords(train, 1, 100.0, by_class=False)
    assert right_share(model, test) > 0.9
    assert np.exp(model.log_likelihoods(test)).sum(axis=1) == pytest.approx(1)
    # The same choices behind questions that say nothing are guessed.
    blind = [one | {"prompt": "which one is it"} for one in test]
    assert right_share(model, blind) < 0.6


def test_order_of_rows_changes_no_bit():
    train, test = categories(60), categories(10, 100)
    again = BagOfWords(train[::-1], 2, 10.0, by_class=True)
    assert again.log_likelihoods(test) == BagOfWords(train, 2, 10.0, by_class=True).log_likelihoods(test)


def test_one_letter_words_and_digits_are_words():
    assert {"a", "5"} <= BagOfWords(categories(60), 1, 1.0, by_class=True).words.vocabulary_.keys()


def test_a_category_that_was_never_the_answer_is_impossible():
    model = BagOfWords([row | {"choices": [*row["choices"], "stone"]} for row in categories(20)], 1, 1.0, by_class=True)
    values = model.log_likelihoods([row(1, ["stone", "plant", "animal"], "stone", "a paw")])[0]
    assert values[0] == -np.inf
    assert np.exp(values).sum() == pytest.approx(1)


def split(directory: Path, **parts: list[dict]) -> Path:
    directory.mkdir()
    for name, rows in parts.items():
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), directory / f"{name}.parquet")
    return finish_node(directory, "split_dataset", {}, {})


def node(folder: Path, data: Path, **config) -> Path:
    config = {"method": "bag_of_words", "longest_ngram": 1, "c": [0.001, 10.0, 100.0], "datasets": ["d-1"]} | config
    return write_node(folder / "baseline", "fit_baseline", config, {"train": data, "test-0": data})


def answers(made: Path) -> list[dict]:
    return pq.read_table(made / "predictions.parquet").to_pylist()


def test_stage_chooses_on_validation_and_is_scored_as_a_model_is(tmp_path: Path):
    """In a process that can import neither torch nor pandas."""
    test = categories(40, 200)
    test[0] |= {"prompt": "nothing known here"}
    # With four animals to a plant, a model that is regularised too much calls everything an animal.
    train = categories(60) + categories(180, 300)[::2]
    data = split(tmp_path / "split", train=train, validation=categories(20, 100), test=test)
    baseline = node(tmp_path, data)
    (tmp_path / "sitecustomize.py").write_text(REFUSE)
    command = [sys.executable, str(SCRIPTS / "fit_baseline.py"), str(baseline)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    facts = manifest.read(baseline)["facts"]
    assert (facts["chosen_on"], facts["validation_rows"], facts["c"]) == ("validation", 20, 10.0)
    assert facts["validation_accuracy"] == {"0.001": 0.5, "10": 1.0, "100": 1.0}
    made = answers(baseline)
    assert {(one["step"], one["dataset"], one["error"]) for one in made} == {(0, "d-1", None)}
    assert {one["raw_text"] for one in made} <= {"animal", "plant", ""}
    scores = write_node(baseline / "scores", "score", {"datasets": ["d-1"]}, {"predictions": baseline, "test-0": data})
    scored = pq.read_table(make_here("score", scores) / "scores.parquet").to_pylist()
    right = sum(one["parsed"] == one["answer"] for one in made)
    assert {(one["metric"], one["numerator"], one["denominator"]) for one in scored} == {
        (f"accuracy_{name}", right, 40) for name in ("strict", "lenient", "likelihood")
    }
    assert right >= 39
    assert scored[0]["low"] < scored[0]["value"]


def test_stage_asks_the_split_that_is_evaluated(tmp_path: Path):
    data = split(tmp_path / "split", train=categories(20), validation=categories(6, 100), test=categories(4, 200))
    made = make_here("fit_baseline", node(tmp_path, data, split="validation"))
    assert [one["id"] for one in answers(made)] == [f"row-{n}" for n in range(100, 106)]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"train": categories(8)[::2]}, "all 4 training rows have the answer 'animal'"),
        ({"test": [row(1, ["a"], "a", "x") | {"choices": [], "answer": ""}]}, "id row-001: no choices"),
        ({"validation": []}, "validation.parquet: no rows"),
    ],
)
def test_stage_refuses_what_it_cannot_learn_from(parts: dict, told: str, tmp_path: Path):
    rows = {"train": categories(8), "validation": categories(4, 100), "test": categories(4, 200)}
    directory = node(tmp_path, split(tmp_path / "split", **rows | parts))
    with pytest.raises(StageError, match=told):
        make_here("fit_baseline", directory)
    assert not list(directory.rglob("predictions.parquet"))
