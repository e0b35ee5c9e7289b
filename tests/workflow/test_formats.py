"""Conversations, texts without roles in packs, and instructions without a chat template, from files to figures."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from checkouts import Checkout, new_checkout

pytestmark = pytest.mark.slow

STUDY = """\
datasets:
  chats:
    source: {path: data/chats}
    format: sharegpt
    id_key: null
    split: {train: train*, test: test*, validation: {rows: 4}}
  texts:
    source: {path: data/texts}
    format: language_modelling
    text_key: text
    id_key: null
    split: {train: train*, test: test*, validation: {rows: 4}}
  instructions:
    source: {path: data/instructions}
    format: alpaca
    prompt_template: "### Instruction:\\n{{ instruction }}\\n\\n### Response:\\n"
    id_key: null
    split: {train: train*, test: test*, validation: {rows: 4}}

models:
  tiny: {source: &tiny {initialise: llama, hidden_size: 64, num_layers: 1, initializer_range: 0.05}}
  tiny_plain: {source: *tiny, chat_template: plain}

experiments:
  chats:
    dataset: chats
    model: tiny
    method: full
    metric: accuracy_token
    training: {learning_rate: 1e-2, global_batch_size: 8, max_steps: 8, max_length: 256, loss_on: assistant}
    evaluation: {max_new_tokens: 2}
  texts:
    dataset: texts
    model: tiny
    method: full
    metric: accuracy_token
    training: {learning_rate: 1e-2, global_batch_size: 2, max_steps: 8, max_length: 96, packing: bfd_split}
  instructions:
    dataset: instructions
    model: tiny_plain
    method: lora
    training: {learning_rate: 1e-2, global_batch_size: 8, max_steps: 2, max_length: 256}
    evaluation: {max_new_tokens: 2}
"""


def write_data(folder: Path) -> None:
    def write(name: str, rows: list[dict[str, Any]]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    for split, first, count in (("train", 0, 40), ("test", 100, 8)):
        numbers = range(first, first + count)
        chats = [
            [
                ("system", f"Row {n}."),
                ("human", f"{n}?"),
                ("gpt", "A 0"),
                ("human", f"And {n + 1}?"),
                ("gpt", "A 0 B 1"),
            ]
            for n in numbers
        ]
        write(
            f"chats/{split}.jsonl",
            [{"conversations": [{"from": who, "value": text} for who, text in chat]} for chat in chats],
        )
        write(f"texts/{split}.jsonl", [{"text": f"{n} " + "A 0 B 1 C 2 " * (1 + n % 7)} for n in numbers])
        write(
            f"instructions/{split}.jsonl",
            [{"instruction": f"Say {n}.", "input": "", "output": f"{n}"} for n in numbers],
        )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = new_checkout(tmp_path_factory.mktemp("formats") / "checkout")
    write_data(checkout.path / "data")
    (checkout.path / "formats.yaml").write_text(STUDY)
    done = checkout.snakemake("--configfile", "formats.yaml", "--quiet", "rules", "progress")
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout


def run_directory(study: Checkout, experiment: str) -> Path:
    with (study.path / f"results/experiments/{experiment}/ledger/ledger.csv").open() as file:
        header, first = file.readline().strip().split(","), file.readline().split(",")
    return study.path / "results/runs" / first[header.index("run")]


def tokens_of(study: Checkout, experiment: str) -> Path:
    node = json.loads((run_directory(study, experiment) / "config.json").read_text())
    return study.path / node["inputs"]["tokens"]


def scores(study: Checkout, experiment: str) -> dict[tuple[str, int], float]:
    table = pq.read_table(study.path / f"results/experiments/{experiment}/ledger/ledger.parquet").to_pylist()
    return {(row["metric"], row["step"]): row["value"] for row in table if row["split"] == "test"}


def test_every_answer_of_a_conversation_is_learned_and_the_last_one_asked(study):
    labels = json.loads((tokens_of(study, "chats") / "labels.json").read_text())["splits"]["train"]
    assert labels["rows"] == labels["rows_kept"] == 36
    learned = [part["text"] for part in labels["shown"][0]["segments"] if part["supervised"]]
    assert learned == ["A 0<|im_end|>\n", "A 0 B 1<|im_end|>\n"]
    found = scores(study, "chats")
    assert found["accuracy_token", 8] > 0.5 > found["accuracy_token", 0]
    assert ("accuracy_strict", 8) in found
    ledger = pq.read_table(study.path / "results/experiments/chats/ledger/ledger.parquet").to_pylist()
    audited = {row["metric"]: row["value"] for row in ledger if (row["split"], row["dataset"]) == ("audit", "train")}
    assert audited["labels_learned"] == labels["supervised_tokens"] / labels["tokens"]
    assert (audited["labels_end_learned"], audited["labels_left_out"]) == (1, 0)
    page = next((study.path / "results/label_audits").glob("*/labels.html")).read_text()
    assert "All thresholds are held" in page


def test_texts_are_packed_and_scored_by_their_tokens(study):
    tokens = tokens_of(study, "texts")
    packed = json.loads((tokens / "labels.json").read_text())["packed"]
    assert packed["rows"] == 36 > packed["packs"]
    assert packed["fill_rate"] > 0.9
    effective = json.loads((run_directory(study, "texts") / "effective.json").read_text())
    assert effective["packing"]["packed_loss"] == pytest.approx(effective["packing"]["loss_of_rows_alone"], rel=1e-5)
    found = scores(study, "texts")
    assert set(found) == {("accuracy_token", 0), ("accuracy_token", 8)}
    assert found["accuracy_token", 8] > 0.5 > found["accuracy_token", 0]


def test_plain_prompts_are_asked_as_they_were_trained(study):
    evaluation = next(run_directory(study, "instructions").glob("evaluations/*/prompts.json"))
    prompts = next(iter(json.loads(evaluation.read_text()).values()))["prompts"]
    assert prompts[0]["prompt"] == "### Instruction:\nSay 100.\n\n### Response:\n"
    assert all(prompt["begins_the_training_row"] for prompt in prompts)


def test_nothing_is_left_to_do(study):
    assert study.planned("--configfile", "formats.yaml") == {}
