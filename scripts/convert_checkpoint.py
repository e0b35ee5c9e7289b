"""Complete Hugging Face models of a run's kept checkpoints, each shown to be the trained model.

Reads a finished run (kept.json, checkpoints/, probe.safetensors), its base model and processor; writes
step-<N>/ for every kept step (or the last): weights cast to `dtype`, config.json, generation_config.json,
processor, chat template; LoRA merged in float32, with the adapter kept in step-<N>/adapter/. An adapter that was
trained on a quantised base is merged into what that base stands for, never into the base as published. parity.json
holds what was measured by the parity gate. One fault, and nothing is written. For weights from anywhere else, or
without this workflow: sft convert.

    python scripts/convert_checkpoint.py results/runs/digits-lora-1a2b3c4d/models/float32
"""

import json
from pathlib import Path

from sft.config.nodes import ConvertSettings, TrainSettings
from sft.models.model_directory import model_directory
from sft.models.quantisation_scheme import Scheme
from sft.runtime.stage import Stage, StageError, run_stage


def make(stage: Stage) -> None:
    from sft.models import torch_setup

    settings = stage.settings(ConvertSettings)
    method, dtype = settings.method, settings.dtype
    # As in training, or logits are not equal to the last bit. Full fine-tuning needs no PEFT, which takes longer to
    # import than the conversion takes; for LoRA it is imported without bitsandbytes.
    trained_as = stage.settings(TrainSettings, of="run")
    scheme = Scheme.of(trained_as)
    torch_setup.prepare(stage.options.threads, needs_bitsandbytes=method == "full" or scheme is not None)
    from safetensors.torch import load_file

    from sft.conversion.export import write_full, write_merged
    from sft.conversion.gate import Gate
    from sft.models.loading import load_model

    run = stage.input("run")
    base = model_directory(stage.input("model"), settings.model_step)
    processor_directory = stage.input("processor") / "processor"
    kept = json.loads((run / "kept.json").read_text())["kept"]
    if not kept:
        raise StageError(f"{run / 'kept.json'}: no checkpoint was kept. Train the run again")
    if settings.steps == "last":
        kept = kept[-1:]

    gate = Gate(
        base=base,
        processor=processor_directory,
        method=method,
        dtype=dtype,
        precision=trained_as.precision,
        recorded=load_file(run / "probe.safetensors"),
        scheme=scheme,
    )
    faults, measured = gate.check_base()
    report = {"dtype": dtype, "method": method, "base": {"directory": base.name, **measured}, "steps": {}}
    found = {"base": faults} if faults else {}
    layout = load_model(base, dtype) if method == "full" else None
    for entry in kept:
        step, checkpoint = entry["step"], run / entry["path"]
        _require_complete(checkpoint, method)
        target = stage.output(f"step-{step}")
        if layout is not None:
            write_full(checkpoint, layout, gate.wanted_processor, target)
        else:
            write_merged(checkpoint, base, gate.wanted_processor, dtype, target, scheme)
        faults, measured = gate.check(step, checkpoint, entry["digest"], target)
        if faults:
            found[f"step {step}"] = faults
        report["steps"][str(step)] = measured
        if "quantised" in measured:
            losses = measured["quantised"]["loss_of_prompts"]
            stage.say(
                f"step {step}: loss of the prompts {losses['trained']:.4f} as trained, {losses['shipped']:.4f} shipped"
            )
        stage.say(f"step {step}: {'parity holds' if not faults else f'{len(faults)} faults'}; {_largest(measured)}")
    if found:
        raise StageError(_text(found, stage.directory))
    stage.output("parity.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    steps = [entry["step"] for entry in kept]
    quantised = {step: of["quantised"]["loss_of_prompts"] for step, of in report["steps"].items() if "quantised" in of}
    stage.record(
        steps=steps, base=base.name, base_spread=gate.spread, **({"quantised": quantised} if quantised else {})
    )
    shown = ", ".join(map(str, steps))
    stage.summary(f"{len(steps)} models ({dtype}, steps {shown}) equal the trained ones")


def _require_complete(checkpoint: Path, method: str) -> None:
    needed = "adapter_config.json" if method == "lora" else "config.json"
    if not (checkpoint / needed).is_file():
        raise StageError(f"{checkpoint / needed} is missing: no {method} checkpoint there. Train the run again")


def _largest(measured: dict) -> str:
    """The drifts of a step in one line, largest relative difference first named."""
    drifts = {what: found for what, found in measured.get("logits", {}).items() if isinstance(found, dict)}
    relative = {what: max(found["prompts"]["relative"], found["random"]["relative"]) for what, found in drifts.items()}
    return ", ".join(f"{what} {value:.2g} (bound {drifts[what]['bound']:.2g})" for what, value in relative.items())


def _text(found: dict[str, list[str]], directory: Path) -> str:
    shown = 8
    lines = [f"{directory}: the converted models are not the trained ones; nothing was written"]
    for where, faults in found.items():
        lines += [f"  {where}: {fault}" for fault in faults[:shown]]
        if len(faults) > shown:
            lines.append(f"  {where}: … and {len(faults) - shown} more")
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(make, __doc__)
