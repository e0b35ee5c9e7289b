"""A bag of words that chooses among choices: TF-IDF with logistic regression, both scikit-learn's.

Where all rows have the same choices (categories, sentiments), the words of the question decide between them. Where each
row has its own, a choice is judged by its own words and by how many of them the question has, which also shows what can
be told without understanding the question. Pictures are not seen. Rows are taken in the order of their ids, and nothing
is drawn at random, so the same rows give the same numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union
from sklearn.preprocessing import FunctionTransformer

from sft.data.read.multiple_choice import LETTERS
from sft.evaluation.scoring import likeliest

Row = Mapping[str, Any]
MOST_ITERATIONS = 5000
# A token is any run of word characters: scikit-learn's default drops words of one letter and digits.
WORD = r"(?u)\b\w+\b"


def same_choices(rows: Sequence[Row]) -> bool:
    """Whether all rows have the same choices, in whatever order."""
    return len({tuple(sorted(row["choices"])) for row in rows}) == 1


class BagOfWords:
    """A fitted bag of words; ValueError where the training rows cannot teach one.

    `rows`: canonical examples with choices. `longest_ngram` words at most are one feature; `c` is the inverse
    strength of the L2 regularisation. `by_class`: one class for each choice text, see `same_choices`.
    """

    def __init__(self, rows: Sequence[Row], longest_ngram: int, c: float, by_class: bool):
        rows = sorted(rows, key=lambda row: row["id"])
        self.by_class = by_class
        self.words = TfidfVectorizer(ngram_range=(1, longest_ngram), token_pattern=WORD, sublinear_tf=True)
        # Without a vocabulary: a word that question and choice share counts also where training never had it.
        self.shared = HashingVectorizer(ngram_range=(1, longest_ngram), token_pattern=WORD, alternate_sign=False)
        self.model = LogisticRegression(C=c, max_iter=MOST_ITERATIONS)
        texts = [row["prompt"] for row in rows]
        if by_class:
            features = self.words.fit_transform(texts)
            targets = [row["choices"][LETTERS.index(row["answer"])] for row in rows]
            if len(set(targets)) < 2:
                raise ValueError(f"all {len(rows)} training rows have the answer {targets[0]!r}")
        else:
            self.words.fit([choice for row in rows for choice in row["choices"]])
            features = self._pairs(rows)
            targets = [
                letter == row["answer"] for row in rows for letter, _ in zip(LETTERS, row["choices"], strict=False)
            ]
        self.model.fit(features, targets)

    def log_likelihoods(self, rows: Sequence[Row]) -> list[list[float]]:
        """For each row the log-probabilities of its choices, in the order of the letters.

        A choice that was no training row's answer has probability 0 where choices are classes.
        """
        if self.by_class:
            columns = {label: k for k, label in enumerate(self.model.classes_)}
            found = self.model.predict_log_proba(self.words.transform([row["prompt"] for row in rows]))
            return [
                [float(values[columns[text]]) if text in columns else -np.inf for text in row["choices"]]
                for row, values in zip(rows, found, strict=True)
            ]
        scores = self.model.decision_function(self._pairs(rows))
        made, first = [], 0
        for row in rows:
            own = scores[first : first + len(row["choices"])]
            first += len(own)
            made.append((own - np.logaddexp.reduce(own)).tolist())
        return made

    def _pairs(self, rows: Sequence[Row]) -> Any:
        """Features of every choice of every row: its words, and their cosine with the words of the question."""
        pairs = [(row["prompt"], choice) for row in rows for choice in row["choices"]]
        return make_union(FunctionTransformer(self._words_of), FunctionTransformer(self._alike)).fit_transform(pairs)

    def _words_of(self, pairs: Sequence[tuple[str, str]]) -> Any:
        return self.words.transform([choice for _, choice in pairs])

    def _alike(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        questions, choices = (self.shared.transform(texts) for texts in zip(*pairs, strict=True))
        return np.asarray(questions.multiply(choices).sum(axis=1)).reshape(-1, 1)


def right_share(model: BagOfWords, rows: Sequence[Row]) -> float:
    """The share of rows whose right choice is the likeliest one (a tie is wrong)."""
    chosen = [likeliest(values) for values in model.log_likelihoods(rows)]
    right = sum(best is not None and LETTERS[best] == row["answer"] for best, row in zip(chosen, rows, strict=True))
    return right / len(rows)
