"""A study whose data set and base model are on the hub: jobs of their own fetch them, and no other asks for them."""

import shutil
from pathlib import Path

import pytest
from checkouts import CONFIG, Checkout, new_checkout
from no_network import LOG, refuse_network

from hub_stand_in import HubStandIn
from sft.config.reader import load
from sft.planning.planner import make_plan

pytestmark = pytest.mark.slow
MODEL = "models:\n  tiny: {source: {hub: someone/tiny-llama}}\n"


@pytest.fixture
def hub(tmp_path: Path):
    from sft.embedded.tiny_models import make_model, make_processor

    tokenizer = make_processor("llama")
    source = {"initialise": "llama", "hidden_size": 64, "num_layers": 1, "initializer_range": 0.05, "seed": 1}
    make_model(source, tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    hub = HubStandIn()
    hub.publish_folder("model", "someone/tiny-llama", tmp_path / "model")
    yield hub
    hub.close()


def test_after_the_downloads_nothing_asks_the_hub_and_a_moved_branch_runs_nothing(tmp_path: Path, hub: HubStandIn):
    checkout: Checkout = new_checkout(tmp_path / "checkout")
    shutil.move(checkout.path / "data", tmp_path / "words")
    hub.publish_folder("dataset", "someone/words", tmp_path / "words")
    text = CONFIG.replace("{path: data}", "{hub: someone/words}").partition("  more_words:")[0]
    before, _, rest = text.partition("models:\n")
    (checkout.path / "config/config.yaml").write_text(before + MODEL + rest.partition("\n")[2])
    variables = hub.environment(tmp_path / "cache") | refuse_network(tmp_path)
    done = checkout.snakemake("--until", "download_dataset", "download_model", warm=False, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(checkout.path.glob("results/*/*/manifest.json"))) == 3
    asked = len(hub.requests)
    assert asked
    done = checkout.snakemake("--until", "score", **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert list(checkout.path.glob("results/runs/*/evaluations/*/scores/manifest.json"))
    assert len(hub.requests) == asked
    assert not (tmp_path / LOG).exists()
    hub.publish("dataset", "someone/words", {"more.jsonl": "{}"})
    hub.publish("model", "someone/tiny-llama", {"notes.md": "moved"})
    assert {
        rule for rule in checkout.planned() if not rule.startswith(("plot", "tabulate", "collect", "archive"))
    } == set()
    assert len(hub.requests) == asked


def test_no_download_is_part_of_another_job(tmp_path: Path):
    text = CONFIG.replace("{path: data}", "{hub: someone/words}")
    before, _, rest = text.partition("models:\n")
    (tmp_path / "study.yaml").write_text(before + MODEL + rest.partition("\n")[2])
    nodes = make_plan(load([tmp_path / "study.yaml"])).nodes.values()
    downloads = [node for node in nodes if node.rule.startswith("download_")]
    assert len(downloads) == 3
    assert all(node.made_with is None for node in downloads)


def test_a_model_of_several_places_is_fetched_once_and_before_its_tokenizer(tmp_path: Path, hub: HubStandIn):
    from sft.runtime.manifest import file_digest
    from sft.sources.fetched import content

    checkout: Checkout = new_checkout(tmp_path / "checkout")
    digest = content({path.name: file_digest(path) for path in (tmp_path / "model").iterdir()})
    places = "[{path: /nowhere}, {hub: someone/tiny-llama}]"
    before, _, rest = CONFIG.partition("models:\n")
    model = f"models:\n  tiny: {{source: {{name: tiny, content: {digest}, alternatives: {places}}}}}\n"
    (checkout.path / "config/config.yaml").write_text(before + model + rest.partition("\n")[2])
    variables = hub.environment(tmp_path / "cache")
    done = checkout.snakemake("--until", "download_processor", warm=False, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    (files,) = checkout.path.glob("results/model_files/tiny-*/manifest.json")
    assert list(checkout.path.glob("results/processors/tiny-*/manifest.json"))
    assert "download_model_files" not in checkout.planned()
    # Another place in front is no change.
    checkout.replace("config/config.yaml", "/nowhere", "/elsewhere")
    assert not {"download_model_files", "download_processor"} & set(checkout.planned())
    assert files.is_file()
