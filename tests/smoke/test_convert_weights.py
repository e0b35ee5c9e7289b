"""`sft convert`: every kind of trained weights comes out as the trained model, and no other thing does.

Tests: sft.conversion.checkpoint_kinds, sft.conversion.convert, sft.conversion.published_names,
sft.conversion.state_dicts, sft.models.weight_files
"""

import json
import shutil
from pathlib import Path

import pytest
import small_runs
import torch
import trained_weights as saved
from safetensors.torch import save_file

from sft.conversion.convert import Request, convert
from sft.conversion.merge import ADAPTER_FILES
from sft.models.loading import load_model, load_processor
from sft.models.quantisation_scheme import Scheme
from sft.models.weight_files import WeightFiles
from sft.runtime.stage import StageError
from sft_command import sft

pytestmark = pytest.mark.slow

QUERY = saved.QUERY


class Trained:
    """A tiny text and a tiny vision model, each trained for four steps; what their states are, and their logits."""

    def __init__(self, root: Path, family: str):
        self.root = root
        processor, model = small_runs.write_base(root, family)
        self.base = model / "model"
        self.run = small_runs.write_run(root / "full", processor, model)
        self.lora = small_runs.write_run(root / "lora", processor, model, "lora")
        self.checkpoint = self.run / "checkpoints/checkpoint-4"
        self.adapter = self.lora / "checkpoints/checkpoint-4"
        self.model = load_model(self.checkpoint)
        self.state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.untied = {name: tensor for name, tensor in self.state.items() if name != "lm_head.weight"}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("text"), "llama")


@pytest.fixture(scope="module")
def vision(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("vision"), "qwen2_5_vl")


def converted(trained: Trained, source: Path, target: Path, **changes) -> Path:
    """Convert in this process, with the logits that were recorded in training."""
    target.mkdir(parents=True)
    request = {
        "checkpoint": source,
        "base": trained.base,
        "dtype": None,
        "processor": None,
        "lora_alpha": None,
        "logits": trained.run / "probe.safetensors",
        "step": 4,
        "may_equal_base": False,
        "shard_bytes": 2**20,
    } | changes
    list(convert(Request(**request), target))
    return target


def assert_is(trained: Trained, target: Path) -> None:
    """Fail unless a fresh load has the trained weights bit for bit and the directory is complete."""
    got = load_model(target).state_dict()
    assert got.keys() == trained.state.keys()
    assert all(torch.equal(got[name], trained.state[name]) for name in got)
    load_processor(target)
    assert json.loads((target / "config.json").read_text())["dtype"] == "float32"
    assert {"README.md", "conversion.json", "generation_config.json", "chat_template.jinja"} <= {
        path.name for path in target.iterdir()
    }


PREFIXES = ("", "module.", "_orig_mod.", "_fsdp_wrapped_module.", "module._orig_mod.", "model.")


@pytest.mark.parametrize("family", ["text", "vision"])
@pytest.mark.parametrize("kind", ["full", "dcp", "accelerate", "zero2", "zero3", "hf"])
def test_every_kind_becomes_the_trained_model(request, tmp_path: Path, family: str, kind: str) -> None:
    trained: Trained = request.getfixturevalue(family)
    source = tmp_path / "source"
    match kind:
        case "full":
            source = saved.as_full_state_dict(trained.state, source / "full_weights.pt", "module.", nested=True)
        case "dcp":
            saved.as_dcp(trained.untied, source)
        case "accelerate":
            saved.as_dcp(trained.state, source / "pytorch_model_fsdp_0", "model.")
        case "zero2" | "zero3":
            frozen = tuple(name for name in trained.untied if name.endswith("layernorm.weight"))
            saved.as_zero(trained.untied, source, int(kind[-1]), frozen=frozen)
        case "hf":
            source = trained.checkpoint
    assert_is(trained, converted(trained, source, tmp_path / "model"))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_come_off(text: Trained, tmp_path: Path, prefix: str) -> None:
    state = {name.replace("self_attn.", "_checkpoint_wrapped_module.self_attn."): t for name, t in text.untied.items()}
    source = saved.as_full_state_dict(state, tmp_path / "w.pt", prefix)
    assert_is(text, converted(text, source, tmp_path / "model", logits=None))


@pytest.mark.parametrize("family", ["text", "vision"])
@pytest.mark.parametrize("layout", ["adapter", "state dict with PEFT's names"])
def test_adapters_are_merged(request, tmp_path: Path, family: str, layout: str) -> None:
    trained: Trained = request.getfixturevalue(family)
    recorded = trained.lora / "probe.safetensors"
    source, given = trained.adapter, {"logits": recorded}
    if layout != "adapter":
        from peft import PeftModel

        state = PeftModel.from_pretrained(load_model(trained.base), trained.adapter).state_dict()
        assert any(".lora_A.default.weight" in name for name in state)
        source, given = (
            saved.as_full_state_dict(state, tmp_path / "full_weights.pt"),
            {"logits": recorded, "lora_alpha": 8},
        )
    target = converted(trained, source, tmp_path / "model", **given)
    assert json.loads((target / "conversion.json").read_text())["logits"]["relative"] <= 1e-5
    narrow = converted(trained, source, tmp_path / "narrow", **given, dtype="bfloat16")
    assert {WeightFiles(narrow).dtype(name) for name in WeightFiles(narrow)} == {"bfloat16"}
    assert json.loads((narrow / "config.json").read_text())["dtype"] == "bfloat16"


def test_shards_have_an_index(text: Trained, tmp_path: Path) -> None:
    target = converted(text, text.checkpoint, tmp_path / "model", shard_bytes=2**18)
    assert len(list(target.glob("model-*-of-*.safetensors"))) > 2
    assert_is(text, target)


def test_other_logits_are_caught(text: Trained, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="converted against recorded: logits differ"):
        converted(text, text.checkpoint, tmp_path / "model", step=2)


@pytest.mark.parametrize("fault", ["half", "zeros", "swapped", "duplicated"])
def test_a_wrong_factor_is_told_by_logits(text: Trained, tmp_path: Path, fault: str) -> None:
    """An adapter's factors are small beside the weights that they change: their likeness to the base tells nothing."""
    source = shutil.copytree(text.adapter, tmp_path / "adapter")
    factors = {name: tensor.clone() for name, tensor in WeightFiles(source, ADAPTER_FILES[1]).items()}
    one, other = (f"base_model.model.{QUERY.format(n).replace('.weight', '.lora_B.weight')}" for n in (0, 1))
    match fault:
        case "half":
            factors[one][len(factors[one]) // 2 :] = 0
        case "zeros":
            factors[one].zero_()
        case "swapped":
            factors[one], factors[other] = factors[other].clone(), factors[one].clone()
        case "duplicated":
            factors[one] = factors[other].clone()
    save_file(factors, source / ADAPTER_FILES[1])
    with pytest.raises(StageError, match="converted against recorded: logits differ"):
        converted(text, source, tmp_path / "model", logits=text.lora / "probe.safetensors")


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_merged_logits_may_move_as_far_as_by_other_last_bits(
    text: Trained, tmp_path: Path, monkeypatch, factor
) -> None:
    """Beyond the constant bound, a right merge is within what is measured then; one that is a thousandth off is not."""
    source = shutil.copytree(text.adapter, tmp_path / "adapter")
    factors = {
        name: tensor * factor if "lora_B" in name else tensor.clone()
        for name, tensor in WeightFiles(source, ADAPTER_FILES[1]).items()
    }
    save_file(factors, source / ADAPTER_FILES[1])
    given = {"logits": text.lora / "probe.safetensors"}
    if factor != 1:
        with pytest.raises(StageError, match="converted against recorded: logits differ"):
            converted(text, source, tmp_path / "model", **given)
        return
    monkeypatch.setattr("sft.conversion.convert.MERGE_BOUND", 0.0)
    found = json.loads((converted(text, source, tmp_path / "model", **given) / "conversion.json").read_text())["logits"]
    assert 0 < found["relative"] <= found["bound"] < 1e-4


def test_a_quantised_base_belongs_to_an_adapter(text: Trained, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"has no adapter, and --base-quantised is for adapters alone\. Leave it out"):
        converted(text, text.checkpoint, tmp_path / "model", quantised=Scheme("nf4", True, "float32"))


def test_a_full_disk_is_told_with_the_file_and_leaves_nothing(text: Trained, small_disk: Path) -> None:
    """The text model takes more than the 600 kB that are there."""
    target = small_disk / "model"
    done = sft("convert", text.checkpoint, "--base", text.base, "--output", target)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "model.safetensors: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(small_disk.iterdir())


def test_the_tool_by_hand(text: Trained, tmp_path: Path) -> None:
    source = saved.as_full_state_dict(text.state, tmp_path / "full_weights.pt", "_orig_mod.")
    save_file(
        {
            "input_ids": torch.arange(8).reshape(1, 8),
            "logits": text.model(torch.arange(8).reshape(1, 8)).logits.detach(),
        },
        tmp_path / "logits.safetensors",
    )
    command = ["convert", source, "--base", text.base, "--output", tmp_path / "model"]
    done = sft(*command, "--logits", tmp_path / "logits.safetensors")
    assert done.returncode == 0, done.stderr
    assert "logits: " in done.stdout
    assert_is(text, tmp_path / "model")
    again = sft(*command)
    assert again.returncode == 1
    assert again.stderr == f"error: {tmp_path / 'model'} exists. Remove it, or give another --output\n"
    assert not list(tmp_path.glob(".model*"))
