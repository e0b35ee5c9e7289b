"""The data road with the real scripts: digits from publication to tokens, and what a user sees when it breaks.

Tests: sft.embedded.digits, sft.runtime.stage
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COLUMNS = {
    "prompt_key": "question",
    "choice_key": "choices",
    "answer_key": "correct_answer",
    "completion_key": None,
    "image_keys": ["image"],
    "id_key": "id",
    "group_key": None,
}
PREPARED = {
    "format": "multiple_choice",
    "columns": COLUMNS,
    "choices_layout": "inline",
    "target": "letter_and_text",
    "image_transform": "none",
}
SPLIT = {"split": {"by": "file_name", "train": "train-*", "test": "test-*", "validation": {"rows": 200}}}
TOKENS = {"max_length": 128, "on_too_long": "error", "loss_on": "completion"}


class Road:
    """Directories of nodes below one folder, and the command that makes one."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, name: str, rule: str, config: dict, inputs: dict[str, str] | None = None) -> Path:
        directory = self.folder / name
        directory.mkdir(parents=True, exist_ok=True)
        paths = {key: (self.folder / value).as_posix() for key, value in (inputs or {}).items()}
        node = {"rule": rule, "id": directory.name, "config": config, "identity": config, "inputs": paths}
        (directory / "config.json").write_text(json.dumps(node))
        return directory

    def run(self, *node) -> subprocess.CompletedProcess:
        directory = self.write(*node)
        command = [sys.executable, SCRIPTS / f"{node[1]}.py", directory]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)

    def make(self, *node) -> Path:
        done = self.run(*node)
        assert done.returncode == 0, done.stderr
        return self.folder / node[0]

    def refused(self, *node) -> str:
        """The error of a node that must fail and leave nothing that looks finished."""
        done = self.run(*node)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        left = {path.name for path in (self.folder / node[0]).iterdir()}
        assert left <= {"config.json", ".lock", "audit-failed.html"}
        return done.stderr[done.stderr.index("error: ") :]


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Road:
    road = Road(tmp_path_factory.mktemp("road"))
    road.make("source", "download_dataset", {"source": {"package": "scikit-learn", "name": "digits"}})
    for name in ("none", "invert"):
        road.make(name, "prepare_dataset", PREPARED | {"image_transform": name}, {"source": "source"})
        road.make(f"splits-{name}", "split_dataset", SPLIT, {"dataset": name})
    road.make("processor", "download_processor", {"source": {"initialise": "qwen2_5_vl"}, "chat_template": None})
    return road


@pytest.fixture(scope="module")
def mixed(road) -> Path:
    config = {"mix": {"new": "all", "old": 300}, "mix_seed": 0}
    return road.make("mix", "split_dataset", config, {"part-0": "splits-invert", "part-1": "splits-none"})


@pytest.fixture(scope="module")
def tokens(road) -> Path:
    return road.make("tokens", "tokenize_dataset", TOKENS, {"splits": "splits-none", "processor": "processor"})


def manifest(directory: Path) -> dict:
    return json.loads((directory / "manifest.json").read_text())


def test_published_shards(road):
    facts = manifest(road.folder / "source")["facts"]
    assert facts["rows"] == {
        "train-00000-of-00002.parquet": 719,
        "train-00001-of-00002.parquet": 718,
        "test-00000-of-00001.parquet": 360,
    }
    # Measured: no two of scikit-learn's pictures are equal, so the audit's threshold of the default can be 0.
    assert facts["pictures"] == facts["distinct_pictures"] == 1797
    row = pandas.read_parquet(road.folder / "source/files/test-00000-of-00001.parquet").iloc[0]
    assert row["choices"] == "['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']"


def test_splits_are_disjoint_and_complete(road):
    splits = {
        name: pandas.read_parquet(road.folder / f"splits-none/{name}.parquet")
        for name in ("train", "validation", "test")
    }
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 1237, "validation": 200, "test": 360}
    ids = pandas.concat(splits.values())["id"]
    assert ids.is_unique
    assert set(ids) == {f"digits-{i:04d}" for i in range(1797)}
    row = splits["test"].iloc[0]
    assert row["prompt"] == "Which digit is shown?\nA 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9"
    assert row["completion"] == f"{row['answer']}. {'ABCDEFGHIJ'.index(row['answer'])}"


def test_inverted_pictures_keep_their_ids_and_splits(road):
    plain, inverted = (
        pandas.read_parquet(road.folder / f"splits-{name}/validation.parquet") for name in ("none", "invert")
    )
    assert list(plain["id"]) == list(inverted["id"])
    assert all(a[0] != b[0] for a, b in zip(plain["images"], inverted["images"], strict=True))


def test_a_mix_names_origins_and_prefixes_colliding_ids(road, mixed):
    train = pandas.read_parquet(mixed / "train.parquet")
    assert train["part"].value_counts().to_dict() == {"splits-invert": 1237, "splits-none": 300}
    assert train["id"].is_unique
    assert train["id"].str.startswith("splits-none/").sum() == 300
    assert train["id"].str.startswith("splits-invert/").sum() == 300
    validation = pandas.read_parquet(mixed / "validation.parquet")
    assert set(validation["part"]) == {"splits-invert"}


def test_the_audit_of_the_default_is_clean_and_a_leak_stops_it(road, mixed):
    tests = {"train": "mix", "test-0": "splits-invert", "test-1": "splits-none"}
    audit = road.make("audit", "audit_splits", {"maximum_overlap": 0}, tests)
    made = json.loads((audit / "audit.json").read_text())
    assert made["largest_overlap"] == 0
    assert [(pair["second"], pair["first"]) for pair in made["pairs"]] == [
        ("validation", "train"),
        ("test-0", "train"),
        ("test-1", "train"),
        ("test-0", "validation"),
        ("test-1", "validation"),
    ]
    # Seven training rows published again as test rows, under new ids.
    few = {"split": SPLIT["split"] | {"validation": {"rows": 5}}}
    source = road.folder / "leaking/files"
    source.mkdir(parents=True)
    files = road.folder / "source/files"
    for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"):
        (source / name).symlink_to(files / name)
    renamed = pandas.read_parquet(files / "train-00000-of-00002.parquet").head(7)
    renamed["id"] = [f"copy-{i}" for i in range(7)]
    renamed.to_parquet(source / "test-00000-of-00001.parquet")
    road.make("leaking-source", "download_dataset", {"source": {"path": str(source)}})
    road.make("leaking-rows", "prepare_dataset", PREPARED, {"source": "leaking-source"})
    road.make("leaking-splits", "split_dataset", few, {"dataset": "leaking-rows"})
    error = road.refused(
        "leaking-audit", "audit_splits", {"maximum_overlap": 0}, {"train": "leaking-splits", "test-0": "leaking-splits"}
    )
    assert "test-0 in train by content: 7 of 7 rows (copy-0 = digits-0000, copy-1 = digits-0001" in error
    assert "by id" not in error
    assert "copy-0" in (road.folder / "leaking-audit/audit-failed.html").read_text()


def test_a_linked_source_records_its_bytes_and_notices_a_change(road, tmp_path):
    table = tmp_path / "train-0.csv"
    table.write_text("question,reply\nx,y\n")
    source = road.make("linked", "download_dataset", {"source": {"path": str(table)}})
    assert (source / "files/train-0.csv").samefile(table)
    facts = manifest(source)["facts"]
    assert facts["source_files"][str(table)]["bytes"] == 19
    assert facts["source_files"][str(table)]["mtime_ns"] == table.stat().st_mtime_ns
    table.write_text("question,reply\nx,z\n")
    assert "is not what was written" in road.refused("changed", "prepare_dataset", PREPARED, {"source": "linked"})


def test_the_supervised_text_is_the_completion_and_the_end_of_the_turn(road, tokens):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(road.folder / "processor/processor")
    for split, rows in (("train", 1237), ("validation", 200)):
        made = pandas.read_parquet(tokens / f"{split}.parquet").set_index("id")
        given = pandas.read_parquet(road.folder / f"splits-none/{split}.parquet").set_index("id")
        assert list(made.index) == list(given.index)
        assert len(made) == rows
        for identifier, row in made.iterrows():
            learnt = [label for label in row["labels"] if label != -100]
            assert tokenizer.decode(learnt) == given.loc[identifier, "completion"] + "<|im_end|>\n"
            assert list(row["input_ids"][-len(learnt) :]) == learnt
        assert all(a[0] == b[0] for a, b in zip(made["images"], given["images"], strict=True))
    assert made["input_ids"].map(len).unique().tolist() == [45]
    audit = json.loads((tokens / "labels.json").read_text())["splits"]["train"]
    assert audit["supervised_tokens_per_row"] == {"5": 1237}
    assert audit["end_of_turn_supervised"] == 1
    assert [segment["supervised"] for segment in audit["shown"][0]["segments"]] == [False, True]


def test_rows_that_are_too_long_stop_the_stage(road):
    inputs = {"splits": "splits-none", "processor": "processor"}
    error = road.refused("too-long", "tokenize_dataset", TOKENS | {"max_length": 44}, inputs)
    assert "train: 1237 of 1237 rows are longer than max_length 44 (the longest has 45 tokens; ids digits-0000" in error
    assert "training.max_length" in error


def test_the_initialised_model_is_complete_and_repeatable(road):
    config = {
        "source": {
            "initialise": "qwen2_5_vl",
            "hidden_size": 128,
            "num_layers": 2,
            "initializer_range": 0.1,
            "seed": 3,
        }
    }
    first, second = (
        manifest(road.make(f"model-{i}", "download_model", config, {"processor": "processor"})) for i in range(2)
    )
    assert first["content"] == second["content"]
    assert first["facts"]["parameters"] == 524_992
    files = {path.name for path in (road.folder / "model-0/model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (
            (
                "bad-1",
                "prepare_dataset",
                PREPARED | {"columns": COLUMNS | {"answer_key": "answer"}},
                {"source": "source"},
            ),
            "test-00000-of-00001.parquet: no column 'answer'; did you mean 'correct_answer'?",
        ),
        (
            ("bad-2", "split_dataset", {"split": SPLIT["split"] | {"test": "eval-*"}}, {"dataset": "none"}),
            "split.test: no file matches 'eval-*'; the files are test-00000-of-00001.parquet, train-00000",
        ),
        (
            ("bad-3", "split_dataset", {"mix": {"a": 2000}, "mix_seed": 0}, {"part-0": "splits-none"}),
            "mix, part a: 2000 rows wanted, 1237 training rows there",
        ),
        (
            ("bad-4", "download_dataset", {"source": {"path": "nowhere"}}),
            "source nowhere: no such directory or file",
        ),
    ],
    ids=["column", "pattern", "mix", "source"],
)
def test_what_a_user_sees(road, node, expected):
    assert expected in road.refused(*node)
