"""The supersense data: what is read from WordNet's files, and that splits share no word and no gloss."""

from collections import Counter
from pathlib import Path

import pytest

from sft.embedded import wordnet


def noun(offset: int, number: int, lemmas: list[str], gloss: str) -> str:
    words = " ".join(f"{lemma} 0" for lemma in lemmas)
    return f"{offset:08} {number:02} n {len(lemmas):02x} {words} 000 | {gloss}  "


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    lines = ["  1 This is the licence"]
    senses = []
    offset = 0
    for number in wordnet.CLASSES:
        for i in range(70):
            offset += 10
            # Every third shares a lemma with the one before, of another class or not; every seventh shares a gloss.
            lemmas = [f"word_{offset}"] + ([f"word_{offset - 10}"] if i % 3 == 0 and offset > 10 else [])
            gloss = f"the {offset // 70 if i % 7 == 0 else offset} thing of its kind; an example"
            lines.append(noun(offset, number, lemmas, gloss))
            senses.append(f"{lemmas[0]}%1:{number:02}:00:: {offset:08} 1 {i % 5 + 1}")
    lines.append(noun(offset + 10, 3, ["of_no_class"], "a category that is not asked for"))
    lines.append(noun(offset + 20, 5, ["one_word"], "short"))
    lines.append(noun(offset + 30, 5, ["untagged"], "an animal that the corpus does not have"))
    lines.append(noun(offset + 40, 13, ["rare_food"], "(cooking) a dish that the corpus does not have"))
    noun_file, sense_file = tmp_path / "data.noun", tmp_path / "index.sense"
    noun_file.write_text("\n".join(lines) + "\n")
    sense_file.write_text("\n".join(senses) + "\n")
    return noun_file, sense_file


def test_splits_are_balanced_and_share_nothing(files):
    splits = wordnet.rows_by_split(*files)
    assert Counter(row["label"] for row in splits["test"]) == dict.fromkeys(wordnet.CLASSES.values(), 40)
    groups = {split: {row["group"] for row in rows} for split, rows in splits.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    lemmas = {split: {row["question"].partition(":")[0] for row in rows} for split, rows in splits.items()}
    assert not lemmas["train"] & (lemmas["test"] | lemmas["validation"])
    glosses = {split: {row["question"].partition(": ")[2] for row in rows} for split, rows in splits.items()}
    assert not glosses["train"] & (glosses["test"] | glosses["validation"])
    assert len({row["id"] for rows in splits.values() for row in rows}) == sum(map(len, splits.values()))


def test_what_is_left_out_and_what_is_cut(files):
    rows = [row for rows in wordnet.rows_by_split(*files).values() for row in rows]
    texts = " | ".join(row["question"] for row in rows)
    assert "of no class" not in texts
    assert "one word" not in texts
    assert "untagged" not in texts
    assert "an example" not in texts
    assert "rare food: a dish that the corpus does not have" in texts
    assert all(row["label"] in row["choices"] for row in rows)


def test_the_order_of_lines_changes_nothing(files):
    before = wordnet.rows_by_split(*files)
    noun_file, _ = files
    lines = noun_file.read_text().splitlines()
    noun_file.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert wordnet.rows_by_split(*files) == before
