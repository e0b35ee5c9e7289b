"""Conversion: a trained state comes out as itself, and every way of coming out as something else is noticed.

Tests: sft.conversion.export, sft.conversion.gate, sft.conversion.merge, sft.conversion.parity
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import finish, trained_as, write_base, write_node, write_run

from sft.conversion.export import write_full, write_merged
from sft.conversion.gate import Gate
from sft.conversion.merge import ADAPTER_FILES
from sft.models.loading import load_model, load_processor
from sft.runtime import manifest
from sft.runtime.code import SCRIPTS

# One group: the small models and runs are made once per worker.
pytestmark = pytest.mark.slow

STEP = 4
QUERY = "model.layers.{}.self_attn.q_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


class Small:
    """A tiny base model and runs from it, with what their gates need."""

    def __init__(self, root: Path):
        self.root = root
        self.processor, self.model = write_base(root)
        self.base = self.model / "model"

    def run(self, method: str, name: str | None = None, lora: dict | None = None) -> Path:
        directory = self.root / (name or method)
        return directory if directory.is_dir() else write_run(directory, self.processor, self.model, method, lora)

    def gate(self, run: Path, method: str, dtype: str = "float32") -> Gate:
        recorded = load_file(run / "probe.safetensors")
        return Gate(self.base, self.processor / "processor", method, dtype, "float32", recorded)

    def check(self, run: Path, target: Path, dtype: str = "float32", checkpoint: Path | None = None):
        """(faults, measured) of the gate for the run's last step converted to `target`."""
        entry = next(entry for entry in json.loads((run / "kept.json").read_text())["kept"] if entry["step"] == STEP)
        method = manifest.read(run)["config"]["method"]
        return self.gate(run, method, dtype).check(STEP, checkpoint or run / entry["path"], entry["digest"], target)

    def convert(self, run: Path, method: str, target: Path, dtype: str = "float32") -> Path:
        processor = load_processor(self.processor / "processor")
        checkpoint = run / f"checkpoints/checkpoint-{STEP}"
        if method == "full":
            write_full(checkpoint, load_model(self.base, dtype), processor, target)
        else:
            write_merged(checkpoint, self.base, processor, dtype, target)
        return checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Small(tmp_path_factory.mktemp("small"))
    torch.set_num_threads(threads)


def plant(target: Path, change) -> None:
    """Let `change` alter the stored tensors in place."""
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, target / "model.safetensors", {"format": "pt"}
    )


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_conversion_is_the_trained_model(small, tmp_path, method, dtype):
    run = small.run(method)
    gate = small.gate(run, method, dtype)
    checkpoint = small.convert(run, method, tmp_path, dtype)
    assert gate.check_base()[0] == []
    assert gate.spread == 0.0, "the same base on the same machine gives equal logits"
    faults, measured = small.check(run, tmp_path, dtype)
    assert faults == []
    if (method, dtype) == ("full", "float32"):
        assert measured["logits"]["converted_against_trained"]["prompts"]["max_difference"] == 0.0
    if method == "lora":
        assert measured["logits"]["checkpoint_against_trained"]["prompts"]["max_difference"] == 0.0
        assert (tmp_path / "adapter" / ADAPTER_FILES[1]).read_bytes() == (checkpoint / ADAPTER_FILES[1]).read_bytes()
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype


def halve(tensors):
    tensors[QUERY.format(0)][64:] = 0


def swap(tensors):
    first, second = QUERY.format(0), QUERY.format(1)
    tensors[first], tensors[second] = tensors[second], tensors[first]


def last_bit(tensors):
    flat = tensors[NORM].view(torch.int32)
    flat[3] += 1


TENSOR_FAULTS = {
    "zeroed": (lambda t: t[QUERY.format(1)].zero_(), "q_proj.weight: is all zeros"),
    "missing": (lambda t: t.pop(QUERY.format(1)), "q_proj.weight: missing"),
    "swapped": (swap, "q_proj.weight: holds the values of"),
    "empty": (lambda t: t.update({NORM: torch.empty(0)}), "input_layernorm.weight: is empty, shape (0,)"),
    "half, with the whole shape": (halve, "q_proj.weight: only 1/2 of the rows are filled"),
    "half of the shape": (lambda t: t.update({QUERY.format(0): t[QUERY.format(0)][:64]}), "has shape (64, 128)"),
    "not a number": (lambda t: t[NORM].fill_(float("nan")), "input_layernorm.weight: holds NaN"),
    "last bit": (last_bit, "input_layernorm.weight: differs from the trained tensor by"),
    "untied head": (
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * 1.5}),
        "lm_head.weight: should not be stored",
    ),
    "another type": (lambda t: t.update({NORM: t[NORM].bfloat16()}), "is stored as bfloat16, not float32"),
}


@pytest.mark.parametrize("name", TENSOR_FAULTS)
def test_a_planted_tensor_fault_is_found(small, tmp_path, name):
    change, message = TENSOR_FAULTS[name]
    run = small.run("full")
    small.convert(run, "full", tmp_path)
    plant(tmp_path, change)
    faults, _ = small.check(run, tmp_path)
    assert any(message in fault for fault in faults), faults


def remove(name: str):
    return lambda target: (target / name).unlink()


FILE_FAULTS = {
    "type in config.json": (
        lambda target: edit_json(target / "config.json", dtype="bfloat16"),
        "config.json: dtype says bfloat16, the weights are float32",
    ),
    "setting in config.json": (
        lambda target: edit_json(target / "config.json", image_token_id=5),
        "config.json: image_token_id is 5, the base model's is 6",
    ),
    "untied in config.json": (lambda target: edit_json(target / "config.json", tie_word_embeddings=False), "tie_word"),
    "no chat template": (remove("chat_template.jinja"), "chat_template.jinja: missing"),
    "another chat template": (
        lambda target: (target / "chat_template.jinja").write_text("{{ messages[0].content }}"),
        "the chat template is not the one",
    ),
    "no processor": (remove("processor_config.json"), "processor_config.json: missing"),
    "no tokenizer": (remove("tokenizer.json"), "tokenizer.json: missing"),
    "no generation settings": (remove("generation_config.json"), "generation_config.json: missing"),
    "no weights": (remove("model.safetensors"), "no weights"),
    "truncated weights": (
        lambda target: (target / "model.safetensors").write_bytes((target / "model.safetensors").read_bytes()[:5000]),
        "model.safetensors: damaged",
    ),
}


@pytest.mark.parametrize("name", FILE_FAULTS)
def test_a_planted_file_fault_is_found(small, tmp_path, name):
    change, message = FILE_FAULTS[name]
    run = small.run("full")
    small.convert(run, "full", tmp_path)
    change(tmp_path)
    faults, _ = small.check(run, tmp_path)
    assert any(message in fault for fault in faults), faults


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_base_model_is_no_result(small, tmp_path, method):
    run = small.run(method)
    small.convert(run, method, tmp_path)
    shutil.copyfile(small.base / "model.safetensors", tmp_path / "model.safetensors")
    faults, _ = small.check(run, tmp_path)
    assert "the model is the base model: no tensor differs" in faults


def altered_adapter(checkpoint: Path, target: Path, change) -> Path:
    shutil.copytree(checkpoint, target)
    tensors = load_file(target / ADAPTER_FILES[1])
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / ADAPTER_FILES[1])
    return target


def other_layer(tensors):
    for part in ("lora_A", "lora_B"):
        first, second = (f"base_model.model.model.language_model.layers.{i}.mlp.up_proj.{part}.weight" for i in (0, 1))
        tensors[first], tensors[second] = tensors[second], tensors[first]


def transpose(tensors):
    name = "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_B.weight"
    tensors[name] = tensors[name].T.reshape(tensors[name].shape)


@pytest.mark.parametrize("change", [other_layer, transpose])
def test_a_wrong_merge_is_found(small, tmp_path, change):
    run = small.run("lora")
    checkpoint = run / f"checkpoints/checkpoint-{STEP}"
    wrong = altered_adapter(checkpoint, tmp_path / "wrong", change)
    write_merged(wrong, small.base, load_processor(small.processor / "processor"), "float32", tmp_path / "merged")
    faults, _ = small.check(run, tmp_path / "merged")
    assert any("up_proj.weight: differs from the trained tensor" in fault for fault in faults), faults
    assert any("merged against unmerged, prompts: logits differ" in fault for fault in faults), faults


def test_a_doubled_scaling_is_found(small, tmp_path):
    run = small.run("lora")
    checkpoint = run / f"checkpoints/checkpoint-{STEP}"
    wrong = altered_adapter(checkpoint, tmp_path / "wrong", lambda tensors: None)
    edit_json(wrong / ADAPTER_FILES[0], lora_alpha=16)
    write_merged(wrong, small.base, load_processor(small.processor / "processor"), "float32", tmp_path / "merged")
    faults, _ = small.check(run, tmp_path / "merged")
    assert any("differs from the trained tensor" in fault for fault in faults), faults
    # The same adapter on disk, with the wrong scaling: formula and merge agree, the recorded logits do not.
    faults, _ = small.check(run, tmp_path / "merged", checkpoint=wrong)
    assert [fault.split(":")[0] for fault in faults] == [
        "checkpoint against trained, prompts",
        "checkpoint against trained, random",
    ]


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_rslora": True},
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": True},
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "patch_embed.proj"]},
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["rslora", "dora", "convolution", "head-saved"],
)
def test_variants_of_lora_convert(small, tmp_path, request, lora):
    run = small.run("lora", request.node.callspec.id, lora)
    small.convert(run, "lora", tmp_path)
    faults, measured = small.check(run, tmp_path)
    assert faults == []
    assert measured["tensors"]["by_logits_only"] == []


def test_an_adapter_on_tied_embeddings_is_refused(small, tmp_path):
    # PEFT merges the change into both uses of the tensor, training had it in one: the merge is another model.
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "embed_tokens"]}
    run = small.run("lora", "tied", lora)
    small.convert(run, "lora", tmp_path)
    faults, _ = small.check(run, tmp_path)
    assert any("merged against unmerged" in fault for fault in faults), faults


def test_another_base_than_the_trained_one_is_found(small, tmp_path):
    run = small.run("full")
    other = shutil.copytree(small.base, tmp_path / "other")
    plant(other, lambda tensors: tensors[NORM].mul_(1.001))
    recorded = load_file(run / "probe.safetensors")
    gate = Gate(other, small.processor / "processor", "full", "float32", "float32", recorded)
    faults, _ = gate.check_base()
    assert any("the base model against the run's step 0" in fault for fault in faults), faults


def convert_by_script(small: Small, node: Path, run: Path, method: str) -> subprocess.CompletedProcess:
    inputs = {"run": run, "model": small.model, "processor": small.processor}
    write_node(node, "convert_checkpoint", {"dtype": "float32", "method": method, "steps": "all"}, inputs)
    command = [sys.executable, str(SCRIPTS / "convert_checkpoint.py"), str(node), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_converts_every_kept_step(small, tmp_path):
    done = convert_by_script(small, tmp_path, small.run("full"), "full")
    assert done.returncode == 0, done.stderr
    assert "2 models (float32, steps 2, 4) equal the trained ones" in done.stdout
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert set(parity["steps"]) == {"2", "4"}
    made = manifest.read(tmp_path)
    assert "step-2/model.safetensors" in made["outputs"]
    # Importing PEFT takes longer than converting; full fine-tuning has no use for it.
    assert "peft" not in made["versions"]


def test_the_script_promotes_nothing_when_a_checkpoint_is_not_the_trained_state(small, tmp_path):
    run = shutil.copytree(small.run("full"), tmp_path / "run")
    plant(run / "checkpoints/checkpoint-4", lambda tensors: next(iter(tensors.values())).mul_(1.01))
    finish(run, trained_as("full"))
    done = convert_by_script(small, tmp_path / "models", run, "full")
    assert done.returncode == 1
    assert "step 4: converted against trained, prompts: logits differ by" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")] == ["config.json"]
