"""Small finished nodes (base model, processor, test split, runs) made in seconds, for tests of what reads them.

The runs are trained by a plain loop of a few steps: what is tested is what becomes of a trained state, not how
it was trained. Their files are those that `train_model` leaves behind.
"""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

from sft.config.fields import key_fields
from sft.config.nodes import TrainSettings
from sft.config.training_settings import Lora, Optimization
from sft.data.read.examples import SCHEMA
from sft.data.tokens import rendering
from sft.embedded.tiny_models import make_model, make_processor
from sft.models.loading import load_model, load_processor
from sft.models.weight_check import weights_digest
from sft.runtime import manifest
from sft.runtime.code import SCRIPTS
from whole_manifest import whole

CHOICES = [str(digit) for digit in range(10)]
LETTERS = "ABCDEFGHIJ"
LISTED = " ".join(f"{letter} {digit}" for letter, digit in zip(LETTERS, CHOICES, strict=True))
PROMPT = f"Which digit is shown?\n{LISTED}"
STEPS = (2, 4)


def finish(directory: Path, config: dict[str, Any] | None = None, rule: str = "by_hand") -> Path:
    """Write the manifest that makes what lies in `directory` a finished result; config.json beside it."""
    config = config or {}
    outputs = {
        name: made
        for name, made in manifest.describe_files(directory).items()
        if name not in ("manifest.json", "config.json") and not name.startswith("checkpoints/")
    }
    manifest.write(directory, whole(config=config, outputs=outputs))
    return directory


def trained_as(method: str) -> dict[str, Any]:
    """The configuration of a run that was trained by hand."""
    training = Optimization(learning_rate=1e-3, global_batch_size=4, max_steps=4)
    lora = Lora() if method == "lora" else None
    return key_fields(TrainSettings(method=method, lora=lora, seed=0, precision="float32", training=training))


def write_node(directory: Path, rule: str, config: dict[str, Any], inputs: dict[str, Path]) -> Path:
    """A node to run: its directory with config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {name: str(path) for name, path in inputs.items()}
    node = {"rule": rule, "id": f"{rule}-small", "config": config, "identity": config, "inputs": paths}
    (directory / "config.json").write_text(json.dumps(node))
    return directory


def converted(run: Path, nodes: dict[str, Path], method: str, target: Path) -> Path:
    """The last checkpoint of `run`, converted to float32 by the rule's own command, which proves it."""
    config = {"dtype": "float32", "method": method, "steps": "last"}
    inputs = {"run": run, "model": nodes["model"], "processor": nodes["processor"]}
    write_node(target, "convert_checkpoint", config, inputs)
    command = [sys.executable, SCRIPTS / "convert_checkpoint.py", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def picture(digit: int, seed: int) -> bytes:
    """PNG bytes of a noisy 16 x 16 picture that depends on the digit."""
    noise = np.random.default_rng([digit, seed]).integers(0, 120, (16, 16, 3), dtype=np.uint8)
    noise[:, digit : digit + 3] += 130
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    return buffer.getvalue()


def examples(rows: int, pictures: bool = True, prefix: str = "row") -> list[dict[str, Any]]:
    """Canonical examples of the digits in turn."""
    return [
        {
            "id": f"{prefix}-{i:03}",
            "source_file": "test-00000-of-00001.parquet",
            "prompt": PROMPT,
            "completion": f"{LETTERS[i % 10]}. {i % 10}",
            "choices": CHOICES,
            "answer": LETTERS[i % 10],
            "images": [picture(i % 10, i)] if pictures else [],
            "group": None,
            "system": None,
        }
        for i in range(rows)
    ]


def write_split(directory: Path, rows: list[dict[str, Any]]) -> Path:
    """A finished split whose test rows are `rows`."""
    directory.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), directory / "test.parquet")
    return finish(directory)


def write_base(root: Path, family: str = "qwen2_5_vl") -> tuple[Path, Path]:
    """(processor node, model node) of a tiny model with random weights."""
    processor = make_processor(family)
    source = {"initialise": family, "hidden_size": 128, "num_layers": 2, "initializer_range": 0.1, "seed": 0}
    tokenizer = getattr(processor, "tokenizer", processor)
    processor.save_pretrained(root / "processor" / "processor")
    make_model(source, tokenizer).save_pretrained(root / "model" / "model")
    processor.save_pretrained(root / "model" / "model")
    return finish(root / "processor"), finish(root / "model")


def train_batch(processor: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Model inputs of whole rows (prompt and answer), padded, as training sees them."""
    whole = [rendering.texts(processor, row)[1] for row in rows]
    arguments: dict[str, Any] = {"text": whole, "padding": True, "return_tensors": "pt", "add_special_tokens": False}
    if rendering.takes_pictures(processor):
        arguments["images"] = [[Image.open(io.BytesIO(image)) for image in row["images"]] for row in rows]
    return dict(processor(**arguments))


def write_run(
    directory: Path,
    processor: Path,
    model: Path,
    method: str = "full",
    lora: dict[str, Any] | None = None,
    learning_rate: float = 3e-3,
) -> Path:
    """A finished run: checkpoints at `STEPS`, kept.json and probe.safetensors."""
    torch.manual_seed(0)
    prepare = load_processor(processor / "processor")
    pictures = rendering.takes_pictures(prepare)
    batch = train_batch(prepare, examples(8, pictures, "train"))
    inputs = train_batch(prepare, examples(4, pictures, "validation"))
    random_ids = {"input_ids": torch.randint(20, 300, (2, 24))}
    trained = load_model(model / "model")
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        trained = get_peft_model(
            trained, LoraConfig(**(lora or {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}))
        )
    stored = {f"inputs/{name}": tensor for name, tensor in inputs.items()}
    stored["random/input_ids"] = random_ids["input_ids"]

    def record(step: int) -> None:
        trained.eval()
        with torch.no_grad():
            stored[f"step-{step}/logits"] = trained(**inputs).logits
            stored[f"step-{step}/random_logits"] = trained(**random_ids).logits

    record(0)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    kept = []
    for step in range(1, max(STEPS) + 1):
        trained.train()
        trained(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in STEPS:
            record(step)
            path = f"checkpoints/checkpoint-{step}"
            trained.save_pretrained(directory / path)
            kept.append({"step": step, "path": path, "digest": weights_digest(trained.state_dict())})
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, directory / "probe.safetensors")
    (directory / "kept.json").write_text(json.dumps({"kept": kept, "probe": {}}))
    return finish(directory, trained_as(method), "train_model")
