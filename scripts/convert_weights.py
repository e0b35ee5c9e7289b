"""Turns trained weights of any known kind, from anybody, into a complete Hugging Face model, and shows that it is one.

Reads a sharded checkpoint (torch DCP: of this workflow, accelerate's FSDP, RLinf), a whole state dict
(full_weights.pt, with the prefixes of DDP, FSDP, activation checkpointing, torch.compile and PEFT), a DeepSpeed ZeRO
checkpoint, a PEFT adapter, or Hugging Face weights. Needs the base model that was trained: its names, shapes,
configuration and tokenizer are what the result has. No code of a checkpoint is run.

    python scripts/convert_weights.py CHECKPOINT --base BASE --output MODEL
    python scripts/convert_weights.py adapter/ --base BASE --output MODEL --dtype bfloat16 --logits recorded.safetensors

Writes MODEL/ with safetensors (in shards above --shard-gib, with index), config.json that says the type, generation
settings, tokenizer or processor with its chat template, README.md, and conversion.json with what was measured. One
fault, and nothing is left. Exit code: 0 converted, 1 not. At most two shards and a few tensors are in memory. (A run of
this workflow is converted by convert_checkpoint.py, which needs no options.)
"""

import argparse
import gc
import os
import shutil
import sys
from pathlib import Path

from sft.models.quantisation_scheme import Scheme
from sft.runtime.quiet import quiet_environment
from sft.runtime.stage import StageError

SCHEMES = {name: Scheme(name[:4], name == "nf4", "float32") for name in ("nf4", "nf4-single", "int8")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="directory or file with the trained weights")
    parser.add_argument("--base", type=Path, required=True, help="model directory (safetensors) that was trained")
    parser.add_argument("--output", type=Path, required=True, help="directory to make; must not exist")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the base's")
    parser.add_argument("--processor", type=Path, help="tokenizer or processor to ship (default: the base's)")
    parser.add_argument("--lora-alpha", type=float, help="scale of PEFT factors, where no adapter_config.json tells it")
    parser.add_argument(
        "--base-quantised",
        choices=SCHEMES,
        help="how bitsandbytes held the base while the adapter was trained; nf4-single: without double quantisation. "
        "The adapter is merged into the values that it was trained on",
    )
    parser.add_argument("--shard-gib", type=float, default=4.0, help="largest file of weights (default: 4)")
    parser.add_argument(
        "--logits",
        type=Path,
        help="safetensors with input_ids and logits of the trained model, products made in float32 (or a run's "
        "probe.safetensors): the result has to give the same",
    )
    parser.add_argument("--step", type=int, help="the step whose logits a probe.safetensors is read for")
    parser.add_argument("--may-equal-base", action="store_true", help="weights that did not change are no fault")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    options = parser.parse_args()
    quiet_environment()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    gc.set_threshold(50_000)  # as sft.runtime.stage does, and why
    # torch asks for pages of 2 MiB where it takes that much (Linux): fresh memory is then three times as cheap.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from sft.conversion.convert import Request, convert

    others = ("output", "shard_gib", "threads", "base_quantised")
    request = Request(
        **{name: value for name, value in vars(options).items() if name not in others},
        quantised=SCHEMES.get(options.base_quantised),
        shard_bytes=int(options.shard_gib * 2**30),
    )
    target: Path = options.output
    try:
        if target.exists():
            raise StageError(f"{target} exists. Remove it, or give another --output")
        staging = target.with_name(f".{target.name}.converting")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            for line in convert(request, staging):
                print(line)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{target}: complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
