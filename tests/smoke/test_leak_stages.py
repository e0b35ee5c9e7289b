"""Text data divided by a column, mixed by weights and audited against a benchmark, with the real scripts.

Tests: sft.models.encoder
"""

import json
import random
from pathlib import Path

import pandas
import pytest
from test_data_stages import COLUMNS, PREPARED, Road

TEXT = PREPARED | {
    "format": "prompt_completion",
    "columns": COLUMNS
    | {"prompt_key": "ask", "completion_key": "reply", "choice_key": None, "answer_key": None, "image_keys": []},
}
QUESTION = "A farmer has seventeen sheep and all but nine of them run away in the night. How many are left?"


def prose(seed: int, words: int = 30) -> str:
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10**6)}" for _ in range(words))


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Road:
    road = Road(tmp_path_factory.mktemp("leaks"))
    for name, first in (("a", 0), ("b", 10_000)):
        files = road.folder / f"published-{name}"
        files.mkdir()
        rows = [
            {
                "id": f"{name}{i}",
                "ask": prose(first + i),
                "reply": "yes" if i % 4 else "no",
                "fold": ("x", "y")[i % 5 == 0],
            }
            for i in range(200)
        ]
        rows += [row | {"id": f"copy-{row['id']}"} for row in rows[:7]]
        rows += [{"id": f"{name}-leak", "ask": f"Think. {QUESTION}", "reply": "nine", "fold": "x"}]
        (files / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        road.make(f"source-{name}", "download_dataset", {"source": {"path": str(files)}})
        road.make(f"rows-{name}", "prepare_dataset", TEXT, {"source": f"source-{name}"})
        rule = {
            "by": "column",
            "column": "fold",
            "train": "x",
            "test": "y",
            "validation": {"fraction": 0.25},
            "stratify_by": "reply",
            "deduplicate": "exact",
        }
        inputs = {"dataset": f"rows-{name}", "source": f"source-{name}"}
        road.make(f"splits-{name}", "split_dataset", {"split": rule, "id_key": "id"}, inputs)
    return road


def test_rows_are_divided_by_a_published_column(road):
    splits = {
        name: pandas.read_parquet(road.folder / f"splits-a/{name}.parquet") for name in ("train", "validation", "test")
    }
    assert set(splits["test"]["id"]) == {f"a{i}" for i in range(0, 200, 5)}
    # A quarter of the 40 rows that answer no, of the 120 that answer yes; the one that answers nine stays.
    assert splits["validation"]["completion"].value_counts().to_dict() == {"yes": 30, "no": 10}
    assert len(splits["train"]) == 121
    facts = json.loads((road.folder / "splits-a/manifest.json").read_text())["facts"]
    assert facts["removed"] == {"duplicate": {"all.jsonl": 7}}
    assert facts["rows_by_source"]["test"] == {"all.jsonl": 40}


def test_a_mix_by_weights_has_the_rows_that_were_asked_for(road):
    config = {"mix": {"a": 3, "b": 1}, "mix_seed": 5, "rows": 100}
    mix = road.make("mix", "split_dataset", config, {"part-0": "splits-a", "part-1": "splits-b"})
    train = pandas.read_parquet(mix / "train.parquet")
    assert train["part"].value_counts().to_dict() == {"splits-a": 75, "splits-b": 25}
    facts = json.loads((mix / "manifest.json").read_text())["facts"]
    assert (facts["parts"], facts["parts_left_out"]) == ({"a": 75, "b": 25}, {"a": 46, "b": 96})


def test_a_benchmark_in_training_stops_the_run(road):
    files = road.folder / "benchmark"
    files.mkdir()
    pandas.DataFrame({"question": [QUESTION, prose(1)], "answer": ["9", "1"]}).to_parquet(files / "test.parquet")
    road.make("source-benchmark", "download_dataset", {"source": {"path": str(files)}})
    config = {"maximum_overlap": 0, "benchmarks": {"sheep": {"text_keys": ["question"]}}}
    inputs = {"train": "splits-a", "test-0": "splits-a", "benchmark-0": "source-benchmark"}
    error = road.refused("audit", "audit_splits", config, inputs)
    assert "sheep in train by ngram: 2 of 2 rows (test.parquet, row 0 = a-leak, test.parquet, row 1 = a1)" in error
    assert (
        "allow them with audit.benchmarks.sheep.limits.content: 1, audit.benchmarks.sheep.limits.normalised: 1" in error
    )
    page = (road.folder / "audit/audit-failed.html").read_text()
    assert "a farmer has seventeen sheep" in page.lower()
    assert "7</td>" in page, "what was left out is on the page"
    config["benchmarks"]["sheep"]["limits"] = {"ngram": 2, "content": 1, "normalised": "report"}
    made = road.make("allowed", "audit_splits", config, inputs)
    assert json.loads((made / "manifest.json").read_text())["facts"]["largest_by_kind"]["ngram"] == 2


def tiny_encoder(directory: Path) -> Path:
    """An encoder in the form of sentence-transformers with weights that nobody trained: its kind, not its quality."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    signs = {"[PAD]": 0, "[UNK]": 1} | {sign: i for i, sign in enumerate("abcdefghijklmnopqrstuvwxyz0123456789?.,", 2)}
    tokenizer = Tokenizer(models.WordLevel(signs, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(signs), max_position_embeddings=512, **shape)).save_pretrained(directory)
    (directory / "modules.json").write_text("[]")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 300}')
    return directory


@pytest.mark.slow
def test_rows_of_nearly_the_same_meaning_stop_a_run_that_limits_them(road):
    encoder = tiny_encoder(road.folder / "encoder")
    road.make("encoder-node", "download_encoder", {"source": {"path": str(encoder)}})
    # One question in other words: too short for a run of 13 words, and not the same but for punctuation.
    files = road.folder / "meaning"
    files.mkdir()
    # The other rows are of one letter each, which even an encoder that nobody trained can tell apart.
    for name, letter, ask in (
        ("p", "a", "who wrote the book of it all?"),
        ("q", "m", "and who wrote the book of it all?"),
    ):
        rows = [{"id": f"{name}{i}", "ask": chr(ord(letter) + i) * 40, "reply": "yes", "fold": "x"} for i in range(9)]
        rows += [{"id": f"{name}-near", "ask": ask, "reply": "she", "fold": "y"}]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (files / f"{'train' if name == 'p' else 'test'}-0.jsonl").write_text(lines)
    road.make("meaning-source", "download_dataset", {"source": {"path": str(files)}})
    road.make("meaning-rows", "prepare_dataset", TEXT, {"source": "meaning-source"})
    rule = {"by": "file_name", "train": "train*", "test": "test*", "validation": {"rows": 2}, "seed": 1}
    road.make("meaning-splits", "split_dataset", {"split": rule}, {"dataset": "meaning-rows"})
    inputs = {"splits": "meaning-splits", "encoder": "encoder-node"}
    for name, splits in (("vectors", ["train", "validation"]), ("test-vectors", ["test"])):
        road.make(name, "embed_rows", {"splits": splits}, inputs)
    audited = {"train": "meaning-splits", "test-0": "meaning-splits"}
    audited |= {"meaning-train": "vectors", "meaning-test-0": "test-vectors"}
    config = {"maximum_overlap": 0, "embedding": {"similarity": 0.98}, "limits": {"meaning": 0}}
    error = road.refused("meaning-audit", "audit_splits", config, audited)
    assert "by meaning: 1 of 10 rows (q-near = p-near)" in error
    assert "audit.limits.meaning: 1" in error
    road.make("meaning-allowed", "audit_splits", config | {"limits": {"meaning": "report"}}, audited)


def test_a_directory_that_is_no_encoder_is_refused(road):
    (road.folder / "no-encoder").mkdir()
    error = road.refused("no-encoder-node", "download_encoder", {"source": {"path": str(road.folder / "no-encoder")}})
    assert "no modules.json; a model in the form of sentence-transformers has it" in error


def test_a_data_set_without_a_test_row_is_refused(road):
    rule = {"by": "file_name", "train": "all*", "validation": {"fraction": 0.1}}
    error = road.refused("no-test", "split_dataset", {"split": rule | {"test": "test*"}}, {"dataset": "rows-a"})
    assert "split.test: no file matches 'test*'" in error
    short = rule | {"test": {"fraction": 0.5}, "minimum_characters": 10_000}
    error = road.refused("nothing", "split_dataset", {"split": short}, {"dataset": "rows-a"})
    assert "split.test: no train row is left" in error
