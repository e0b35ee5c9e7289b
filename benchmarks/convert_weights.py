"""Time and memory of `sft convert` against the stock tool, on a sharded checkpoint of a random Llama.

Both turn the same DCP directory into safetensors, each in a process of its own; ours also checks every tensor against
the base, reads back what it wrote and writes configuration and tokenizer. The stock tool is accelerate's
merge_fsdp_weights, which writes weights alone. They run in pairs, in alternating order, and medians are told: what a
gigabyte costs to write depends on what the system has left to do from before.

    python benchmarks/convert_weights.py --layers 24 --hidden 1024       # 0.5 B with a vocabulary of 49,152
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STOCK = "from accelerate.utils import merge_fsdp_weights; merge_fsdp_weights({source!r}, {target!r})"
IMPORTS = "import torch, transformers, accelerate.utils, torch.distributed.checkpoint, safetensors.torch"


def make(folder: Path, hidden: int, layers: int, vocabulary: int) -> int:
    """A base model, its tokenizer, and a checkpoint in which every weight has moved a little; returns parameters."""
    sys.path[:0] = [str(ROOT / "scripts")]
    import torch
    import torch.distributed.checkpoint as dcp
    from transformers import LlamaConfig, LlamaForCausalLM

    from sft.embedded.tiny_models import make_processor

    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    heads = {"num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes, **heads))
    model.save_pretrained(folder / "base")
    make_processor("llama").save_pretrained(folder / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-3)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    dcp.save(state, checkpoint_id=folder / "checkpoint" / "pytorch_model_fsdp_0", no_dist=True)
    return sum(parameter.numel() for parameter in model.parameters())


def measured(command: list[str]) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak resident MiB) of a command."""
    clock = time.monotonic()
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.monotonic() - clock, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: what this one had in memory would count as that of those that it starts.
        code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import convert_weights, pathlib; "
        code += f"print(convert_weights.make(pathlib.Path({name!r}), {options.hidden}, {options.layers}, "
        code += f"{options.vocabulary}))"
        made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        parameters = int(made.stdout.split()[-1])
        checkpoint = folder / "checkpoint"
        start = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); from sft.cli.__main__ import main; "
        ours = [sys.executable, "-c", start + "sys.exit(main())", "convert", str(checkpoint), "--shard-gib", "0.5"]
        ours += ["--base", str(folder / "base"), "--output", str(folder / "ours")]
        stock = STOCK.format(source=str(checkpoint / "pytorch_model_fsdp_0"), target=str(folder / "stock"))
        imports = measured([sys.executable, "-c", IMPORTS])
        commands = {"ours": ours, "stock": [sys.executable, "-c", stock]}
        seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        measured(ours)  # not counted: byte code is written, and files are in the system's cache from here on
        for pair in range(options.pairs):
            for name in list(commands)[:: 1 if pair % 2 else -1]:
                shutil.rmtree(folder / name, ignore_errors=True)
                os.sync()
                seen[name].append(measured(commands[name]))
    size = parameters * 4 / 2**20
    print(f"{parameters / 1e9:.2f} B parameters, {size:,.0f} MiB in float32; medians of {options.pairs} pairs")
    for name, runs in {"imports": [imports], **seen}.items():
        wall, cpu, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        above = (peak - imports[2]) / size
        print(
            f"{name:8} {wall:7.1f} s  {cpu:7.1f} CPU s  peak {peak:7,.0f} MiB  ({above:.2f} x the model above imports)"
        )
    for place, what in enumerate(("wall", "CPU")):
        ratios = sorted(one[place] / other[place] for one, other in zip(seen["ours"], seen["stock"], strict=True))
        listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{what} seconds, ours / stock: median {statistics.median(ratios):.2f} (pairs: {listed})")


if __name__ == "__main__":
    main()
