"""Where a run starts: at its newest complete checkpoint that is its own, or, never having had one, at the base.

Checkpoints of other data, another base model or another configuration are set aside; so are, by default, those
of other code. Under other package versions a run stops and lists both, unless it is told to go on and say so. A run
that had progressed and finds nothing usable stops instead of starting over unseen. Imports nothing heavy.
"""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sft.config.nodes import TrainSettings
from sft.config.training_settings import Optimization
from sft.runtime import manifest
from sft.runtime.canonical import digest
from sft.runtime.code import code_digest
from sft.runtime.stage import Stage, StageError
from sft.training.checkpoint import Checkpoint, Checkpoints

POLICIES = ("rerun", "warn", "accept")
# The packages that decide what every training step computes; some methods need more (`needed_packages`).
PACKAGES = ("accelerate", "numpy", "peft", "pillow", "safetensors", "tokenizers", "torch", "transformers", "trl")
INPUTS = ("tokens", "model", "processor")


def provenance(stage: Stage) -> dict[str, Any]:
    """What a checkpoint of this run is made from: `{identity, tokens, model, processor, code, versions}`."""
    packages = [*PACKAGES, *needed_packages(stage.settings(TrainSettings).training)]
    contents = {name: (manifest.read(stage.input(name)) or {}).get("content") for name in INPUTS}
    return {
        "identity": digest(stage.identity),
        **contents,
        "code": code_digest(stage.rule),
        "versions": {name: _version(name) for name in sorted(packages)},
    }


def needed_packages(training: Optimization) -> list[str]:
    """Packages beyond the usual ones that these settings compute with, as pip names them."""
    needed = {
        "bitsandbytes": "8bit" in training.optim or training.quantization != "none",
        "torchao": training.float8 != "none",
        "liger-kernel": training.kernels == "liger",
    }
    return [name for name, is_needed in needed.items() if is_needed]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise StageError(
            f"{name} is not installed, and training is configured to use it. Install it, or name an environment that "
            f"has it"
        ) from None


@dataclass(frozen=True)
class Start:
    """The checkpoint to continue from; None: the base model."""

    checkpoint: Checkpoint | None

    @property
    def step(self) -> int:
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def path(self) -> Path | None:
        return self.checkpoint.path if self.checkpoint else None


def find_start(
    checkpoints: Checkpoints,
    made_from: dict[str, Any],
    policy: str,
    kept: list[int],
    total: int,
    environment: str = "strict",
) -> Start:
    """Set aside what cannot be used and return where to start; StageError where that would lose progress unseen.

    `policy` is for checkpoints of other code, `environment` (strict or record) for those of other package versions.
    """
    checkpoints.clean()
    own, foreign = [], False
    for checkpoint in checkpoints.all():
        reason, difference = _difference(checkpoint.marker["provenance"], made_from)
        if reason is None or (reason == "other-code" and policy != "rerun"):
            if reason and policy == "warn":
                checkpoints.say(f"warning: {checkpoint.path.name} was made by {difference}; continuing from it")
            own.append(checkpoint)
        else:
            foreign = True
            checkpoints.set_aside(checkpoint.path, reason, f"it was made by {difference}")
    for checkpoint in own:
        _require_same_versions(checkpoint, made_from["versions"], environment, checkpoints)
    start = _newest_usable(checkpoints, own, total)
    if start is None:
        reached = checkpoints.reached()
        if reached is not None and not (foreign and not own):
            raise StageError(
                f"{checkpoints.directory}: the run had reached step {reached}, but no complete checkpoint is left to "
                f"continue from. Delete {checkpoints.directory} to start over from the base model"
            )
        checkpoints.forget()
        return Start(None)
    found = {checkpoint.step: checkpoint for checkpoint in own if checkpoint.step <= start.step}
    for step in kept:
        if step < start.step:
            fault = found[step].fault() if step in found else "it is missing"
            if fault:
                raise StageError(
                    f"{checkpoints.directory}/checkpoint-{step}, which is to be evaluated, is damaged: {fault}. "
                    f"Delete {checkpoints.directory} to train the run again"
                )
    return Start(start)


def _newest_usable(checkpoints: Checkpoints, own: list[Checkpoint], total: int) -> Checkpoint | None:
    for checkpoint in reversed(own):
        fault = checkpoint.fault()
        if fault:
            checkpoints.set_aside(checkpoint.path, "broken", fault)
        elif checkpoint.resumable or checkpoint.step == total:
            return checkpoint
    return None


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[str | None, str]:
    """(reason in a file name, what differs in words); (None, "") where nothing does."""
    for name, words in (("tokens", "data"), ("model", "base model"), ("processor", "processor")):
        if theirs.get(name) != ours[name]:
            return f"other-{name}", f"another {words}"
    if theirs.get("identity") != ours["identity"]:
        return "other-config", "another configuration"
    if theirs.get("code") != ours["code"]:
        return "other-code", "another version of our code"
    return None, ""


def _require_same_versions(
    checkpoint: Checkpoint, now: dict[str, str], environment: str, checkpoints: Checkpoints
) -> None:
    """StageError where other versions made the checkpoint and nobody has said that this run may mix them."""
    before = checkpoint.marker["provenance"].get("versions", {})
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if not changed:
        return
    then, here = (", ".join(f"{name} {versions.get(name)}" for name in changed) for versions in (before, now))
    if environment == "strict":
        raise StageError(
            f"{checkpoint.path} was made with {then}; here are {here}. Continue it where those versions are, or go on "
            f"with the ones here, which the run's manifest will always say (snakemake --config environment=record), or "
            f"delete {checkpoints.directory} to start over from the base model"
        )
    checkpoints.say(f"{checkpoint.path.name} was made with {then}; continuing with {here}")
