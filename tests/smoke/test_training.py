"""What train_model computes, records and refuses.

Tests: sft.models.torch_setup, sft.training.adapter, sft.training.backends.trl, sft.training.bookkeeping,
sft.training.evaluating, sft.training.loop, sft.training.run_setup, sft.training.tensorboard_mirror
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import small_runs
import training_nodes as runs

pytestmark = pytest.mark.slow


def facts(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())["facts"]


def train_rows(run: Path) -> list[dict[str, Any]]:
    return [row for row in runs.rows(run) if row["split"] == "train"]


# The same numbers as TRL


def _trl_alone(nodes: dict[str, Path], run: Path) -> None:
    """Train with TRL's own SFTTrainer, collator and untokenised rows; write its log to `run`/trl.json."""
    import io

    from datasets import Dataset
    from PIL import Image
    from trl import SFTConfig, SFTTrainer

    from sft.config.nodes import TrainSettings
    from sft.models.loading import load_model, load_processor
    from sft.training.backends.trl import score_labelled_positions_only
    from sft.training.training_arguments import requested_arguments

    score_labelled_positions_only()
    examples = {row["id"]: row for row in small_runs.examples(52)}
    ids = pq.read_table(nodes["tokens"] / "train.parquet")["id"].to_pylist()
    rows = [
        {
            "images": [Image.open(io.BytesIO(image)) for image in examples[row]["images"]],
            "prompt": [{"role": "user", "content": examples[row]["prompt"]}],
            "completion": [{"role": "assistant", "content": examples[row]["completion"]}],
        }
        for row in ids
    ]
    settings = TrainSettings.read_back(json.loads((run / "config.json").read_text())["config"])
    arguments = requested_arguments(settings, "cpu", 0, str(run / "trl"))
    arguments |= {"logging_strategy": "steps", "logging_steps": 1}
    del arguments["dataset_kwargs"]
    trainer = SFTTrainer(
        load_model(nodes["model"] / "model"),
        SFTConfig(**arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_processor(nodes["processor"] / "processor"),
    )
    trainer.train()
    (run / "trl.json").write_text(json.dumps(trainer.state.log_history))


def test_losses_equal_those_of_trls_own_vision_collator(vision_nodes, tmp_path: Path) -> None:
    run = runs.train_well(runs.write_run(tmp_path / "run", vision_nodes))
    other = runs.write_run(tmp_path / "other", vision_nodes)
    assert runs.train(other, patch=lambda: (_trl_alone(vision_nodes, other), sys.exit(0))) == 0, runs.log(other)
    theirs = [entry for entry in json.loads((other / "trl.json").read_text()) if "loss" in entry]
    ours = train_rows(run)
    assert len(ours) == len(theirs) == 12
    assert [row["loss"] for row in ours] == [entry["loss"] for entry in theirs]
    assert [row["grad_norm"] for row in ours] == [entry["grad_norm"] for entry in theirs]
    assert [row["learning_rate"] for row in ours] == [entry["learning_rate"] for entry in theirs]
    # TRL counts in its last collated batch what we count from the rows.
    assert ours[-1]["tokens_seen"] == theirs[-1]["num_tokens"]
    # The trainer keeps nothing of its own beside the rows that it maps.
    beside = sorted(path.name.split("-")[0] for path in (vision_nodes["tokens"] / ".rows").iterdir())
    assert beside == [".lock", "train", "validation"]


def test_logits_of_labelled_positions_only_give_the_loss_of_all(text_nodes, tmp_path: Path) -> None:
    def score_all() -> None:
        from sft.training.backends import trl

        trl.score_labelled_positions_only = lambda: False

    some = runs.train_well(runs.write_run(tmp_path / "some", text_nodes, max_steps=4))
    every = runs.write_run(tmp_path / "every", text_nodes, max_steps=4)
    assert runs.train(every, patch=score_all) == 0, runs.log(every)
    for one, other in zip(train_rows(some), train_rows(every), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    assert json.loads((some / "effective.json").read_text())["built"]["logits"] == "labelled positions"


@pytest.mark.parametrize(("kind", "method"), [("text", "full"), ("vision", "lora")])
def test_micro_batches_give_the_same_run(nodes, tmp_path: Path, kind: str, method: str) -> None:
    """Rows have different numbers of supervised tokens, so a mean over micro batches would give another loss."""
    lora = runs.LORA | {"dropout": 0.0}  # dropout draws by micro batch
    changes = {"lora": lora if method == "lora" else None, "save_steps": None}
    made = nodes[kind]
    if kind == "text":
        rows = [row | {"completion": row["answer"] * (1 + i % 5)} for i, row in enumerate(runs.text_rows(52))]
        made = made | {"tokens": runs.write_tokens(tmp_path / "tokens", made["processor"], rows)}
    whole = runs.train_well(runs.write_run(tmp_path / "whole", made, method, **changes))
    parts = runs.train_well(runs.write_run(tmp_path / "parts", made, method, **changes), "--micro-batch-size", "2")
    for one, other in zip(train_rows(whole), train_rows(parts), strict=True):
        assert one["samples"] == other["samples"]
        assert (one["tokens_seen"], one["loss_tokens"]) == (other["tokens_seen"], other["loss_tokens"])
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=2e-5)
    assert facts(parts)["attempts"][0]["micro_batch_size"] == 2


def test_adapter_in_bfloat16_trains(vision_nodes, tmp_path: Path) -> None:
    run = runs.train_well(
        runs.write_run(tmp_path / "run", vision_nodes, "lora", precision="bfloat16", max_steps=3, save_steps=None)
    )
    built = json.loads((run / "effective.json").read_text())["built"]
    assert (built["mixed_precision"], built["weights_dtype"]) == ("bf16", ["float32"])
    assert facts(run)["precision"] == "bfloat16"
    # The probe is taken without autocast: step 0 is the base model in float32, exactly.
    import torch
    from safetensors.torch import load_file

    from sft.models.loading import load_model

    probe = load_file(run / "probe.safetensors")
    inputs = {name.removeprefix("inputs/"): value for name, value in probe.items() if name.startswith("inputs/")}
    with torch.no_grad():
        base = load_model(vision_nodes["model"] / "model")(**inputs).logits
    assert torch.equal(base, probe["step-0/logits"])
    assert not torch.equal(base, probe["step-3/logits"])


# Records


def test_records_of_a_finished_run(vision_nodes, tmp_path: Path) -> None:
    run = runs.train_well(runs.write_run(tmp_path / "run", vision_nodes, max_steps=None, num_train_epochs=2.0))
    rows = runs.rows(run)
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 11))
    assert [row["step"] for row in rows if row["split"] == "validation"] == [0, 4, 8, 10]
    kept = json.loads((run / "kept.json").read_text())
    assert [entry["step"] for entry in kept["kept"]] == [4, 8, 10]
    for entry in kept["kept"]:
        files = {path.name for path in (run / entry["path"]).iterdir()}
        assert "model.safetensors" in files
        assert not files & {"optimizer.pt", "scheduler.pt", "rng_state.pth", "README.md"}
    assert {name.split("/")[0] for name in kept["probe"]} == {
        "inputs",
        "random",
        "step-0",
        "step-4",
        "step-8",
        "step-10",
    }
    assert kept["probe"]["step-10/logits"][:2] == kept["probe"]["inputs/input_ids"]
    effective = json.loads((run / "effective.json").read_text())
    assert effective["effective"]["max_length"] is None
    assert effective["effective"]["logging_nan_inf_filter"] is False
    assert effective["effective"]["activation_checkpointing"] is False
    assert effective["built"]["sampler"] == "SeedableRandomSampler"
    assert str(tmp_path) not in json.dumps(effective)
    told = facts(run)
    assert told["rows"] == {"train": 40, "validation": 12}
    assert told["tokens_seen"] == rows[-1]["tokens_seen"]
    assert told["parameters"] == told["trainable_parameters"] > 500_000
    assert (told["device"], told["world_size"], told["resumed"], told["mixed"]) == ("cpu", 1, [], None)
    assert told["attempts"][0]["cuda"] is None
    tidy = pq.read_table(run / "metrics.parquet").to_pandas()
    for row in rows:
        one = tidy[(tidy["step"] == row["step"]) & (tidy["split"] == row["split"]) & (tidy["metric"] == "loss")]
        assert one["value"].item() == pytest.approx(row["loss"], rel=1e-12)
        assert (one["numerator"].item(), one["denominator"].item()) == (row["loss_sum"], row["loss_tokens"])


def test_tensorboard_shows_every_step_once(text_nodes, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = runs.write_run(tmp_path / "run", text_nodes)
    child = runs.Child(run)
    child.wait_for(saved=4, step=6)
    child.kill()
    runs.train_well(run)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))
    losses = [row["loss"] for row in train_rows(run)]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses, rel=1e-6)
    assert [event.step for event in events.Scalars("validation/loss")] == [0, 4, 8, 12]


def test_same_seed_gives_the_same_files_and_another_seed_another_order(text_nodes, tmp_path: Path) -> None:
    one, two, three = (
        runs.train_well(runs.write_run(tmp_path / name, text_nodes, "lora", seed=seed, save_steps=None))
        for name, seed in (("one", 1), ("two", 1), ("three", 2))
    )
    manifests = [json.loads((run / "manifest.json").read_text()) for run in (one, two, three)]
    assert manifests[0]["content"] == manifests[1]["content"] != manifests[2]["content"]
    assert train_rows(one)[0]["samples"] != train_rows(three)[0]["samples"]


def test_training_goes_on_from_a_converted_model(text_nodes, tmp_path: Path) -> None:
    import shutil

    converted = tmp_path / "converted"
    for step in (4, 8):
        shutil.copytree(text_nodes["model"] / "model", converted / f"step-{step}")
    made = text_nodes | {"model": small_runs.finish(converted)}
    run = runs.write_run(tmp_path / "run", made, max_steps=2, save_steps=None, model_step=4)
    runs.train_well(run)
    assert f"loaded {converted / 'step-4'}" in runs.log(run)


def test_eight_bit_optimizer_by_the_command_itself(text_nodes, tmp_path: Path) -> None:
    run = runs.write_run(tmp_path / "run", text_nodes, optim="adamw_8bit", save_steps=None, eval_steps=None)
    done = subprocess.run(runs.command(run), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("train_model train_model-small: 12 steps, loss ")
    assert len(done.stdout.splitlines()) == 1
    assert "bitsandbytes" in json.loads((run / "effective.json").read_text())["built"]["optimizer"]["class"]
    assert "bitsandbytes" in json.loads((run / "manifest.json").read_text())["versions"]
    rows = train_rows(run)
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.gpu
def test_run_on_a_gpu_continues_after_a_kill(text_nodes, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    run = runs.write_run(tmp_path / "run", text_nodes, max_steps=200, save_steps=50, eval_steps=50)
    command = [*runs.command(run)[:3], "--device", "cuda"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while child.poll() is None and 50 not in runs.saved_steps(run):
        time.sleep(0.1)
    child.kill()
    child.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = facts(run)
    assert (told["device"], told["resumed"][0] >= 50) == ("cuda", True)
    assert told["attempts"][-1]["cuda"]
