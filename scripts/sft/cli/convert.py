"""Turns trained weights of any known kind, from anybody, into a complete, proven Hugging Face model: `sft convert`."""

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


def run(options: argparse.Namespace) -> int:
    """Convert, and print what was found; 0 converted, 1 not and nothing is left."""
    quiet_environment()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    gc.set_threshold(50_000)  # as sft.runtime.stage does, and why
    # torch asks for pages of 2 MiB where it takes that much (Linux): fresh memory is then three times as cheap.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from sft.conversion.convert import Request, convert

    # What of the options is no field of the request.
    others = ("verb", "output", "shard_gib", "threads", "base_quantised")
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
