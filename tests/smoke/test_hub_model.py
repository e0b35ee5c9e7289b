"""A base model of the hub: one commit for tokenizer and weights, and what is refused before it is fetched.

Tests: sft.models.weight_check
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub_bench import publish_tiny_llama
from hub_stand_in import HubStandIn
from sft.models.model_files import needs_safetensors
from sft.runtime.stage import StageError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NAME = "someone/tiny-llama"
TOKEN = "hf_madeUpTokenOfATest"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as people publish them: two shards of weights, tokenizer, template, card."""
    return publish_tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(published: Path):
    hub = HubStandIn(tokens=(TOKEN,))
    hub.publish_folder("model", NAME, published)
    yield hub
    hub.close()


class Road:
    """Runs the two downloads of a model in `folder`."""

    def __init__(self, folder: Path, hub: HubStandIn):
        self.folder, self.hub = folder, hub

    def run(self, rule: str, inputs: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess:
        directory = self.folder / rule
        directory.mkdir(exist_ok=True)
        config = {"source": {"hub": NAME, "revision": "main"}, "chat_template": None}
        paths = {name: str(self.folder / input) for name, input in (inputs or {}).items()}
        node = {"rule": rule, "id": rule, "config": config, "identity": config, "inputs": paths}
        (directory / "config.json").write_text(json.dumps(node))
        return subprocess.run(
            [sys.executable, SCRIPTS / f"{rule}.py", directory],
            env=os.environ | self.hub.environment(self.folder / "cache", **options),
            capture_output=True,
            text=True,
        )

    def make(self, rule: str, inputs: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        done = self.run(rule, inputs, **options)
        assert done.returncode == 0, done.stderr
        return json.loads((self.folder / rule / "manifest.json").read_text())


@pytest.fixture
def road(tmp_path: Path, hub: HubStandIn) -> Road:
    return Road(tmp_path, hub)


def test_tokenizer_and_weights_are_of_one_commit_though_the_branch_moves(road, hub, published):
    first = hub.repositories["model", NAME].branches["main"]
    processor = road.make("download_processor")
    assert processor["facts"]["commit"] == first
    assert processor["facts"]["licence"] == "apache-2.0"
    assert not hub.asked(r"\.safetensors$")  # weights are no business of a tokenizer
    hub.publish("model", NAME, {"tokenizer.json": "{}", "model.safetensors.index.json": None})
    model = road.make("download_model", {"processor": "download_processor"})
    assert model["facts"]["commit"] == first
    assert not hub.asked("original/")
    from sft.models.loading import load_model
    from sft.models.weight_check import check_loaded

    loaded = load_model(road.folder / "download_model/model")
    assert check_loaded(loaded, published) == len(list(loaded.parameters()))
    (shard,) = (road.folder / "download_model/model").glob("model-00001-of-*.safetensors")
    assert any(blob.samefile(shard) for blob in road.folder.rglob("cache/hub/*/blobs/*"))
    # Once more without a network: the cache has that commit.
    (road.folder / "download_model/manifest.json").unlink()
    again = road.make("download_model", {"processor": "download_processor"}, offline=True)
    assert again["content"] == model["content"]


def test_code_of_the_author_is_refused(road, hub, published):
    config = json.loads((published / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling.Mine"}}
    hub.publish("model", NAME, {"config.json": json.dumps(config), "modeling.py": "raise SystemExit('was run')"})
    done = road.run("download_processor")
    assert done.returncode == 1
    assert "auto_map asks to run the model author's own code" in done.stderr
    assert not hub.asked("modeling.py")


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (["README.md"], "no config.json at its top: no model that transformers loads"),
        (["small/config.json"], r"there is small/config.json; only the top counts"),
        (["config.json", "pytorch_model.bin"], r"no model.safetensors .* but pickles \(pytorch_model.bin\)"),
        (["config.json", "original/consolidated.safetensors"], "but no weights at its top"),
    ],
)
def test_what_is_no_model_is_refused_before_it_is_fetched(listed, reason):
    with pytest.raises(StageError, match=f"source {NAME}: .*{reason}"):
        needs_safetensors(NAME, listed)
