"""`sft convert`: what is not the trained model is refused, kind by kind; and no code of a checkpoint runs.

What is planted in each kind (FAULTS, and what an adapter's factors can have): a rank's part saved as the whole, empty,
transposed, missing, duplicated and swapped tensors, NaN, zeros, two values for what is tied. Logits are not used.

Tests: sft.conversion.likeness, sft.models.dcp
"""

import pickle
import re
import shutil
from pathlib import Path

import pytest
import small_runs
import torch
import trained_weights as saved
from safetensors.torch import save_file
from torch import Tensor

from sft.conversion import stream
from sft.conversion.convert import Request, convert
from sft.conversion.merge import ADAPTER_FILES
from sft.models.dcp import DcpTensors
from sft.models.loading import load_model
from sft.runtime.stage import StageError

pytestmark = pytest.mark.slow

QUERY = saved.QUERY


class Weights:
    """A tiny base model, and weights that are a training's distance away from it."""

    def __init__(self, root: Path):
        _, model = small_runs.write_base(root, "llama")
        self.base = model / "model"
        torch.manual_seed(0)
        state = load_model(self.base).state_dict()
        self.untied = {n: t + 1e-3 * torch.randn_like(t) for n, t in state.items() if n != "lm_head.weight"}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Weights:
    return Weights(tmp_path_factory.mktemp("text"))


def converted(weights: Weights, source: Path, target: Path, **changes) -> Path:
    target.mkdir(parents=True)
    nothing = dict.fromkeys(("dtype", "processor", "lora_alpha", "logits", "step"))
    request = {"checkpoint": source, "base": weights.base, "may_equal_base": False, "shard_bytes": 2**20}
    list(convert(Request(**nothing | request | changes), target))
    return target


# What must not pass


def _half(state):
    """Rank 0's rows, and zeros, as one rank saved them."""
    tensor = state[QUERY.format(1)]
    tensor[len(tensor) // 2 :] = 0


def _slice(state):
    state[QUERY.format(1)] = state[QUERY.format(1)][:64].clone()


def _empty(state):
    state[QUERY.format(1)] = torch.empty(0)


def _transposed(state):
    state[QUERY.format(1)] = state[QUERY.format(1)].T.clone()


def _missing(state):
    del state[QUERY.format(1)]


def _duplicated(state):
    state[QUERY.format(1)] = state[QUERY.format(0)].clone()


def _twice(state):
    state[f"module.{QUERY.format(1)}"] = state[QUERY.format(1)].clone()


def _swapped(state):
    one, other = QUERY.format(0), QUERY.format(1)
    state[one], state[other] = state[other].clone(), state[one].clone()


def _strange(state):
    state["value_head.weight"] = torch.ones(3)


def _nan(state):
    state[QUERY.format(1)][0, 0] = float("nan")


def _zeros(state):
    state[QUERY.format(1)].zero_()


def _untied(state):
    state["lm_head.weight"] = state["model.embed_tokens.weight"] + 1


FAULTS = [
    (_half, "only 1/2 of the rows are filled"),
    (_slice, "1/2 of it, as in a shard saved as the whole"),
    (_empty, "is empty"),
    (_transposed, "is transposed"),
    (_missing, f"{QUERY.format(1)}: missing"),
    (_duplicated, f"holds what belongs to {QUERY.format(0)}"),
    (_twice, "are the same tensor of the model"),
    (_swapped, f"holds what belongs to {QUERY.format(0)}"),
    (_strange, "value_head.weight: fits no tensor"),
    (_nan, "holds NaN"),
    (_zeros, "is all zeros"),
    (_untied, "differs from"),
]


def test_without_a_fault_every_kind_passes(text: Weights, tmp_path: Path) -> None:
    source = saved.as_full_state_dict(text.untied, tmp_path / "full_weights.pt")
    assert (converted(text, source, tmp_path / "model") / "conversion.json").is_file()


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
@pytest.mark.parametrize("kind", ["full", "dcp", "zero2", "zero3", "hf"])
def test_planted_fault_is_caught_without_logits(text: Weights, tmp_path: Path, kind: str, fault, said: str) -> None:
    state = {name: tensor.clone() for name, tensor in text.untied.items()}
    fault(state)
    source = tmp_path / "source"
    if kind == "full":
        source = saved.as_full_state_dict(state, tmp_path / "full_weights.pt")
    elif kind == "dcp":
        saved.as_dcp(state, source)
    elif kind == "hf":
        source.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, source / "model.safetensors")
    else:
        saved.as_zero(state, source, int(kind[-1]))
    with pytest.raises(StageError, match=re.escape(said)):
        converted(text, source, tmp_path / "model")


def test_base_given_out_as_trained_is_caught(text: Weights, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the weights are the base model's"):
        converted(text, text.base, tmp_path / "model")


def _factors(layers: int = 2, rank: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(1)
    made = {}
    for layer in range(layers):
        module = f"base_model.model.{QUERY.format(layer).removesuffix('.weight')}"
        made |= {f"{module}.lora_A.weight": torch.randn(rank, 128), f"{module}.lora_B.weight": torch.randn(128, rank)}
    return {name: 1e-2 * tensor for name, tensor in made.items()}


def _of_adapter(fault: str, factors: dict[str, Tensor]) -> None:
    one, other = (f"base_model.model.{QUERY.format(n).replace('.weight', '.lora_B.weight')}" for n in (0, 1))
    match fault:
        case "slice":
            factors[one] = factors[one][:64].clone()
        case "empty":
            factors[one] = torch.empty(0)
        case "transposed":
            factors[one] = factors[one].T.contiguous()
        case "missing":
            del factors[one]
        case "twice":
            factors[one.replace("lora_B", "lora_B.default")] = factors[one].clone()
        case "NaN":
            factors[one][0, 0] = float("nan")
        case "zeros":
            factors[one].zero_(), factors[other].zero_()
        case "strange":
            factors["base_model.model.value_head.lora_A.weight"] = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("slice", "cannot be merged"),
        ("empty", "cannot be merged"),
        ("transposed", "cannot be merged"),
        ("missing", "adapter parts A cannot be merged"),
        ("twice", "are the same tensor of the model"),
        ("NaN", "holds NaN"),
        ("zeros", "the weights are the base model's"),
        ("strange", "value_head.lora_A.weight: fits no tensor"),
    ],
)
def test_planted_fault_of_an_adapter_is_caught(text: Weights, tmp_path: Path, fault: str, said: str) -> None:
    source, factors = tmp_path / "adapter", _factors()
    source.mkdir()
    (source / ADAPTER_FILES[0]).write_text('{"lora_alpha": 8, "r": 4}')
    save_file(factors, source / ADAPTER_FILES[1])
    converted(text, source, tmp_path / "sound")
    _of_adapter(fault, factors)
    save_file(factors, source / ADAPTER_FILES[1])
    with pytest.raises(StageError, match=re.escape(said)):
        converted(text, source, tmp_path / "model")


def test_what_was_written_is_read_back(text: Weights, tmp_path: Path, monkeypatch) -> None:
    def flipped(tensors, file, metadata):
        name = QUERY.format(1)
        if name in tensors:
            tensors = tensors | {name: tensors[name].clone()}
            tensors[name].view(torch.int32)[0, 0] ^= 1
        save_file(tensors, file, metadata)

    monkeypatch.setattr(stream, "save_file", flipped)
    source = saved.as_full_state_dict(text.untied, tmp_path / "full_weights.pt")
    with pytest.raises(StageError, match=f"{QUERY.format(1)}: what was written is not what was read"):
        converted(text, source, tmp_path / "model")


def test_missing_shards_are_named(text: Weights, tmp_path: Path) -> None:
    zero = saved.as_zero(text.untied, tmp_path / "zero", 2)
    (zero / "global_step7/zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(StageError, match="1 of 2 ranks"):
        converted(text, zero, tmp_path / "model")
    dcp = saved.as_dcp(text.untied, tmp_path / "dcp")
    next(dcp.glob("*.distcp")).unlink()
    with pytest.raises(StageError, match="is missing"):
        converted(text, dcp, tmp_path / "other")


class _Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("where", ["full", "dcp", "dcp piece", "zero", "zero optimizer"])
def test_no_code_of_a_checkpoint_runs(text: Weights, tmp_path: Path, where: str) -> None:
    canary, source = tmp_path / "canary", tmp_path / "source"
    if where == "full":
        source = tmp_path / "full_weights.pt"
        torch.save({**text.untied, "extra": _Canary(canary)}, source)
    elif where == "dcp":
        saved.as_dcp(text.untied, source)
        with (source / ".metadata").open("rb") as file:
            metadata = pickle.load(file)
        metadata.planner_data = _Canary(canary)
        (source / ".metadata").write_bytes(pickle.dumps(metadata))
    elif where == "dcp piece":
        saved.as_dcp(text.untied, source)
        with (source / ".metadata").open("rb") as file:
            metadata = pickle.load(file)
        info = next(iter(metadata.storage_data.values()))
        torch.save(_Canary(canary), source / "hostile.distcp")
        info.relative_path, info.offset = "hostile.distcp", 0
        info.length = (source / "hostile.distcp").stat().st_size
        (source / ".metadata").write_bytes(pickle.dumps(metadata))
    else:
        saved.as_zero(text.untied, source, 2)
        file = "mp_rank_00_model_states.pt" if where == "zero" else "zero_pp_rank_1_mp_rank_00_optim_states.pt"
        path = source / "global_step7" / file
        torch.save(torch.load(path, weights_only=False) | {"args": _Canary(canary)}, path)
    with pytest.raises(StageError, match=r"refused|cannot be read as a tensor"):
        converted(text, source, tmp_path / "model")
    assert not canary.exists()


def test_pieces_of_a_dcp_stay_inside_it(text: Weights, tmp_path: Path) -> None:
    source = saved.as_dcp(text.untied, tmp_path / "dcp")
    with (source / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    shutil.move(source / "__0_0.distcp", tmp_path / "__0_0.distcp")
    for info in metadata.storage_data.values():
        info.relative_path = "../__0_0.distcp"
    (source / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(StageError, match="outside of the checkpoint"):
        DcpTensors(source)
