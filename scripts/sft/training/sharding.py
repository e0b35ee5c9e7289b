"""What the trainer is asked for so that a run is spread over processes, and the proof that it is spread that way.

Libraries fall back without an error: accelerate 1.15 trains plain DDP, or one process, when it is asked for FSDP on
a CPU. So what was built is looked at, and every difference from what was asked stops the run.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from sft.runtime.stage import StageError
from sft.terms.strategies import SHARDED_WEIGHTS
from sft.training.deepspeed_config import STAGES, deepspeed_config

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer

    from sft.training.ranks import Ranks


def arguments(
    strategy: str, model: nn.Module, requested: dict[str, Any], precision: str, offload: bool = False
) -> dict[str, Any]:
    """Arguments of the trainer for a strategy, besides those `requested` for one process.

    `model` knows its blocks, which are sharded one by one.
    """
    if strategy in STAGES:
        if importlib.util.find_spec("deepspeed") is None:
            raise StageError(
                f"training.distributed.strategy {strategy}: DeepSpeed is not installed here. Name a lock that has it "
                f"as the experiment's environment: deepspeed, or cpu-deepspeed where there is no GPU"
            )
        # Its own autocast is in the configuration; accelerate would turn on DeepSpeed's training of rounded weights.
        return {"deepspeed": deepspeed_config(strategy, requested, precision, offload), "bf16": False}
    if strategy not in ("fsdp2", "fsdp1"):
        return {}
    _refuse_torn_ties(model, strategy)
    config = {
        "version": int(strategy.removeprefix("fsdp")),
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": blocks(model),
        "reshard_after_forward": True if strategy == "fsdp2" else "FULL_SHARD",
        "state_dict_type": "SHARDED_STATE_DICT",
    }
    if strategy == "fsdp1":
        # Every process has loaded the same verified weights; sending them around needs an accelerator.
        config |= {"sync_module_states": False, "cpu_ram_efficient_loading": False, "use_orig_params": True}
    return {"fsdp": True, "fsdp_config": config}


def _refuse_torn_ties(model: nn.Module, strategy: str) -> None:
    """StageError where an adapter's whole copy (modules_to_save) belongs to one of two tied layers.

    The copy is a group of shards of its own, and the tensor that both layers share would be in two groups.
    """
    if not hasattr(model, "peft_config"):
        return
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for shared in names.values():
        if len(shared) > 1 and any(".original_module." in name for name in shared):
            raise StageError(
                f"training.distributed.strategy {strategy}: {' and '.join(shared)} are one tensor (tied embeddings), "
                f"which cannot be in shards beside lora.modules_to_save. Use strategy ddp, or leave it out of "
                f"lora.modules_to_save"
            )


def blocks(model: nn.Module) -> list[str]:
    """Class names of the model's repeated blocks, as its author names them (what no device may split)."""
    named = {str(name) for name in getattr(model, "_no_split_modules", None) or ()}
    found = sorted(named & {type(module).__name__ for module in model.modules()})
    if not found:
        raise StageError(
            f"training: {type(model).__name__} does not say which of its blocks stay whole (_no_split_modules), so "
            f"nothing can be sharded or compiled by block. Use strategy ddp, and compile: none"
        )
    return found


def allow_on_cpu(strategy: str) -> None:
    """What a strategy needs to run on a machine without an accelerator."""
    if strategy in ("fsdp2", "fsdp1"):
        allow_fsdp_on_cpu()
    elif strategy in STAGES:
        # By itself DeepSpeed guesses from what is installed. It compiles its exchange through shared memory when it
        # is first used (a minute with g++ and ninja; kept in ~/.cache/torch_extensions).
        os.environ["DS_ACCELERATOR"] = "cpu"


def allow_fsdp_on_cpu() -> None:
    """Let accelerate shard on a CPU with gloo, which it can but never chooses; for machines without an accelerator.

    accelerate 1.15 sets the distributed type to MULTI_CPU there and drops the plugin that it was given.
    """
    import torch
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    if hasattr(AcceleratorState, "fsdp_on_cpu"):
        return
    stock = AcceleratorState.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        plugin = kwargs.get("fsdp_plugin")
        if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = plugin
            # FSDP 1 compares devices by name, and its own name for this one is "cpu", not "cpu:0".
            PartialState._shared_state["device"] = self.device = torch.device("cpu")

    AcceleratorState.__init__ = init
    AcceleratorState.fsdp_on_cpu = True


def found(trainer: Trainer, ranks: Ranks) -> dict[str, Any]:
    """How the prepared model of `trainer` really is spread: JSON values, equal on every rank."""
    import torch.distributed as dist
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    outer, model = trainer.model_wrapped, trainer.model
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    sharded = sum(p.numel() for p in parameters if isinstance(p, DTensor) and any(s.is_shard() for s in p.placements))
    here = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters)
    units: list[Any] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    precision = trainer.accelerator.mixed_precision
    if isinstance(outer, DistributedDataParallel):
        strategy = "ddp"
    elif units:
        strategy = "fsdp2"
    elif isinstance(outer, FullyShardedDataParallel):
        strategy = "fsdp1"
        units = [unit.module for unit in FullyShardedDataParallel.fsdp_modules(outer)]
        # Every element is on one rank once when all is sharded.
        count = sharded = sum(ranks.gather(here))
    elif type(outer).__name__ == "DeepSpeedEngine":
        stage = outer.zero_optimization_stage()
        strategy = f"deepspeed_zero{stage}"
        if stage == 3:
            count = sum(p.ds_numel for p in parameters)
            sharded = sum(p.ds_numel for p in parameters if hasattr(p, "ds_tensor"))
            here = sum(p.ds_tensor.numel() for p in parameters)
        precision = "bf16" if outer.torch_autocast_enabled() else "no"
    else:
        strategy = "none"
    return {
        "strategy": strategy,
        "world_size": ranks.world,
        "backend": dist.get_backend() if dist.is_initialized() else None,
        "wrapper": type(outer).__name__,
        "wrapped_classes": sorted({_own_name(module) for module in units}),
        "parameters": count,
        "sharded_parameters": sharded,
        "parameters_by_rank": ranks.gather(here),
        "trainable_dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in parameters if p.requires_grad}),
        "mixed_precision": precision,
        "attention": getattr(model.config, "_attn_implementation", None),
    }


def require_as_asked(asked: dict[str, Any], got: dict[str, Any]) -> None:
    """StageError that lists each difference between a request and what `found` saw.

    `asked` is what was settled before the model was wrapped: strategy, world_size, device, wrapped_classes,
    mixed_precision, attention.
    """
    wanted = dict(asked)
    strategy, processes = wanted["strategy"], wanted["world_size"]
    backend = {"cpu": "gloo", "cuda": "nccl"}[wanted.pop("device")]
    # A CUDA group may name both ("cpu:gloo,cuda:nccl").
    differences = [] if backend in str(got["backend"]) else [f"backend: asked {backend}, got {got['backend']}"]
    classes = set(wanted.pop("wrapped_classes"))
    if strategy in SHARDED_WEIGHTS:
        if missing := sorted(classes - set(got["wrapped_classes"])):
            differences.append(f"wrapped classes: {', '.join(missing)} stayed whole")
        if got["sharded_parameters"] < got["parameters"]:
            differences.append(f"{got['parameters'] - got['sharded_parameters']} parameters are not sharded")
        if processes > 1 and max(got["parameters_by_rank"]) >= got["parameters"]:
            differences.append("every rank holds all parameters")
    differences += [f"{name}: asked {value}, got {got[name]}" for name, value in wanted.items() if got[name] != value]
    if got["trainable_dtypes"] != ["float32"]:
        differences.append(f"trained weights are {', '.join(got['trainable_dtypes'])}, not float32")
    if differences:
        raise StageError(f"training.distributed: what runs is not what was asked for: {'; '.join(differences)}")


def _own_name(module: nn.Module) -> str:
    """The class before FSDP put its own in front (`FSDPLlamaDecoderLayer` is a LlamaDecoderLayer)."""
    return type(module).__name__.removeprefix("FSDP")
