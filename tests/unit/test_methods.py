"""Ways to train that exclude each other, or that the declared device cannot do: refused where the file is read.

Tests: sft.config.exclusions
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_studies import DIGITS

from sft.config.errors import ConfigError
from sft.config.exclusions import on_device
from sft.config.reader import load
from sft.config.training_settings import Optimization
from sft.training.resume import needed_packages

STUDY: dict[str, Any] = {
    "datasets": {"d": DIGITS},
    "models": {"m": {"source": {"initialise": "llama"}}},
}
TRAINING = {"learning_rate": 1e-3, "global_batch_size": 64, "max_steps": 120, "max_length": 64}
FSDP2 = {"strategy": "fsdp2", "processes": 2}

# (what it is, changes of training, of the cell, the key that is blamed, what the message says)
TABLE = [
    ("full weights in 4 bit", {"quantization": "nf4"}, {"method": "full"}, "quantization", "only adapters on them"),
    ("full weights in 8 bit", {"quantization": "int8"}, {"method": "full"}, "quantization", "only adapters on them"),
    ("8 bit in shards", {"quantization": "int8", "distributed": FSDP2}, {}, "quantization", "Use nf4 with fsdp2"),
    (
        "4 bit in shards without scales",
        {"quantization": "nf4", "distributed": FSDP2 | {"strategy": "fsdp1"}},
        {},
        "quantization",
        "Use strategy fsdp2",
    ),
    (
        "DoRA on 4 bit in shards",
        {"quantization": "nf4", "distributed": FSDP2},
        {"lora": {"use_dora": True}},
        "quantization",
        "Use strategy ddp",
    ),
    ("DoRA on 8 bit", {"quantization": "int8"}, {"lora": {"use_dora": True}}, "quantization", "Use nf4"),
    ("one scale of nothing", {"double_quantization": False}, {}, "double_quantization", "no effect"),
    (
        "one scale of 8 bit",
        {"quantization": "int8", "double_quantization": False},
        {},
        "double_quantization",
        "no effect with quantization: int8",
    ),
    ("type of nothing", {"quantization_compute": "bfloat16"}, {}, "quantization_compute", "quantization: nf4"),
    (
        "type of 8 bit",
        {"quantization": "int8", "quantization_compute": "bfloat16"},
        {},
        "quantization_compute",
        "in 8 bit",
    ),
    ("FP8 of 4 bit", {"quantization": "nf4", "float8": "tensorwise"}, {}, "float8", "cast to FP8"),
    ("emulated nothing", {"float8_emulated": True}, {}, "float8_emulated", "no effect"),
    ("FP8 on a CPU", {"float8": "rowwise"}, {"execution": {"device": "cpu"}}, "float8", "float8_emulated: true"),
    ("compiled 4 bit", {"quantization": "nf4", "compile": "default"}, {}, "compile", "Write compile: none"),
    ("compiled Liger", {"kernels": "liger", "compile": "default"}, {}, "compile", "Choose one"),
    ("compiled offloading", {"activation_offloading": True, "compile": "default"}, {}, "compile", "hooks"),
    (
        "compiled flash",
        {"attention": "flash_attention_2", "precision": "bfloat16", "compile": "default"},
        {},
        "compile",
        "attention: sdpa",
    ),
    ("compiled shards", {"compile": "default", "distributed": FSDP2}, {}, "compile", "strategy fsdp2"),
    ("compiled by Unsloth", {"backend": "unsloth", "compile": "default"}, {}, "compile", "brings its own"),
    (
        "CUDA graphs on a CPU",
        {"compile": "reduce-overhead"},
        {"execution": {"device": "cpu"}},
        "compile",
        "Write compile: default",
    ),
    ("compile as an extra", {"extra": {"torch_compile": True}}, {}, "extra.torch_compile", "training.compile"),
    ("Liger on a CPU", {"kernels": "liger"}, {"execution": {"device": "cpu"}}, "kernels", "Triton"),
    ("flex on a CPU", {"attention": "flex_attention"}, {"execution": {"device": "cpu"}}, "attention", "no backward"),
    ("flash in float32", {"attention": "flash_attention_2"}, {}, "attention", "precision: bfloat16"),
    (
        "flash on a CPU",
        {"attention": "flash_attention_2", "precision": "bfloat16"},
        {"execution": {"device": "cpu"}},
        "attention",
        "needs CUDA",
    ),
    (
        "offloading on a CPU",
        {"activation_offloading": True},
        {"execution": {"device": "cpu"}},
        "activation_offloading",
        "activation_checkpointing: true",
    ),
    (
        "offloading nothing",
        {"activation_offloading": True, "activation_checkpointing": True},
        {},
        "activation_offloading",
        "Choose one",
    ),
    (
        "chosen layers with Unsloth",
        {"backend": "unsloth"},
        {"lora": {"layers": [0], "target_modules": ["q_proj"]}},
        "backend",
        "lora.layers",
    ),
    ("an attention of nobody", {"attention": "flash"}, {}, "attention", "is not one of eager"),
]


def written(path: Path, training: dict[str, Any], cell: dict[str, Any]) -> Path:
    experiment = {"dataset": "d", "model": "m", "method": "lora", "training": TRAINING | training} | cell
    path.write_text(yaml.safe_dump(STUDY | {"experiments": {"e": experiment}}))
    return path


@pytest.mark.parametrize(("training", "cell", "key", "says"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_cannot_be_is_refused(
    training: dict[str, Any], cell: dict[str, Any], key: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load([written(tmp_path / "study.yaml", training, cell)])
    [problem] = caught.value.problems
    assert problem.key == f"experiments.e.training.{key}"
    assert says in str(problem), str(problem)
    assert problem.line


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ({"layers": [0]}, "List the modules"),
        ({"layers": [], "target_modules": ["q_proj"]}, "Count from 0"),
    ],
)
def test_layers_need_listed_modules(lora: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load([written(tmp_path / "study.yaml", {}, {"lora": lora})])


# `auto` may turn out to be a CPU; then the run says, when it has found out, what a CPU cannot do.
@pytest.mark.parametrize(
    ("training", "not_on_a_cpu"),
    [
        ({"quantization": "nf4", "double_quantization": False, "quantization_compute": "bfloat16"}, set()),
        ({"quantization": "nf4", "distributed": FSDP2, "precision": "bfloat16"}, set()),
        ({"quantization": "int8", "distributed": FSDP2 | {"strategy": "ddp"}}, set()),
        ({"float8": "rowwise", "float8_emulated": True, "distributed": FSDP2}, set()),
        ({"compile": "default", "distributed": FSDP2 | {"strategy": "ddp"}}, set()),
        ({"float8": "tensorwise", "float8_emulated": True, "compile": "default"}, set()),
        ({"float8": "tensorwise", "compile": "max-autotune"}, {"float8", "compile"}),
        ({"kernels": "liger", "activation_offloading": True}, {"kernels", "activation_offloading"}),
        ({"attention": "flash_attention_2", "precision": "bfloat16", "packing": "bfd"}, {"attention"}),
    ],
)
def test_what_can_be_is_read(training: dict[str, Any], not_on_a_cpu: set[str], tmp_path: Path) -> None:
    study = load([written(tmp_path / "study.yaml", training, {})])
    [cell] = study.experiments["e"].cells.values()
    asked = cell.content.training
    assert {key for key, _, _ in on_device(asked, "cpu")} == not_on_a_cpu
    assert not list(on_device(asked, "cuda"))


def test_packages_that_methods_need() -> None:
    def needed(**changes: Any) -> list[str]:
        return needed_packages(Optimization(learning_rate=1e-3, global_batch_size=8, **changes))

    assert needed() == []
    assert needed(optim="adamw_8bit") == ["bitsandbytes"]
    assert needed(optim="sgd", quantization="nf4", kernels="liger") == ["bitsandbytes", "liger-kernel"]
    assert needed(optim="sgd", float8="rowwise") == ["torchao"]
