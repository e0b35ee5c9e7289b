"""The estimates of planned runs, as `sft check` prints them, and what cannot fit the device that is declared.

Imports nothing heavy. A model that is not here yet (a package that will be fetched) has no estimate until it is.
"""

import struct
from pathlib import Path
from typing import Any

from sft.config.distributed import Distributed
from sft.config.nodes import TrainSettings
from sft.config.training_settings import Tokens
from sft.estimates.estimate import GIB, MIB, Estimate, Shape, Where, cheapest_change, estimate
from sft.planning.node import Node
from sft.planning.plan import Plan, PlanError

# Sizes that sft.embedded.tiny_models gives its families, beside those of the configuration.
INITIALISED_VOCABULARY = 318


def shape_of(train: Node) -> Shape | None:
    """The shape of the base model of a run; None where it is not known.

    Nothing is known before it is fetched, and of a configuration that does not name its sizes in the usual way, or that
    cannot be read: what is damaged is found, told and made again elsewhere.
    """
    try:
        return _shape_of(train)
    except (LookupError, ValueError, TypeError, AttributeError, struct.error):
        return None


def _shape_of(node: Node) -> Shape | None:
    while node.rule != "download_model":
        node = node.inputs["run"] if "run" in node.inputs else node.inputs["model"]
    source = node.config["source"]
    made = [Path(node.directory, "model")]
    made += [Path(node.inputs["files"].directory, "files")] if "files" in node.inputs else []
    for directory in made:
        if (directory / "config.json").is_file():
            return Shape.of_directory(directory)
    if "initialise" in source:
        return Shape.of_config(_initialised(source))
    if "path" in source and Path(source["path"], "config.json").is_file():
        return Shape.of_directory(Path(source["path"]))
    return None


def with_models(node: Node) -> list[Node]:
    """What the job of a node makes before it in the same process, of what loads models and takes as much as a job."""
    return [one for one in node.first if one.rule in ("convert_checkpoint", "ask_base")]


def of_run(train: Node) -> Estimate | None:
    """The estimate of one run; None where the model's shape is not known."""
    shape = shape_of(train)
    return None if shape is None else of_shape(train, shape)


def of_shape(train: Node, shape: Shape) -> Estimate:
    """The estimate of one run whose model has this shape."""
    return estimate(shape, train.settings(TrainSettings), _longest(train), _where(train))


def require_fit(plan: Plan) -> None:
    """PlanError for runs that cannot fit `execution.device_memory_mib`, each with the cheapest change that helps."""
    faults: dict[str, str] = {}
    for node in plan.of_rule("train_model"):
        limit = (node.execution["device_memory_mib"] or 0) * MIB
        shape = shape_of(node) if limit else None
        made = of_run(node) if limit else None
        if shape is not None and made is not None and made.device_bytes > limit:
            change = cheapest_change(shape, node.settings(TrainSettings), _longest(node), _where(node), limit)
            text = (
                f"{node.id}: needs about {_size(made.device_bytes)} a device ({_parts(made)}), and "
                f"execution.device_memory_mib says {_size(limit)}. It would fit with {change}"
            )
            faults.setdefault(change, text)
    if faults:
        raise PlanError("\n".join(faults.values()))


def words(made: Estimate) -> str:
    """One estimate in a line."""
    trained = "all trained" if made.trained == made.parameters else f"{_count(made.trained)} trained"
    tokens = f"at most {_count(made.tokens)} tokens, {made.operations:.2g} operations" if made.tokens else "by epochs"
    return (
        f"{_count(made.parameters)} parameters, {trained}; {_size(made.device_bytes)} a device ({_parts(made)}); "
        f"{_size(made.disk)} on disk; {tokens}"
    )


def _longest(train: Node) -> int:
    """Tokens that a row may have."""
    return train.inputs["tokens"].settings(Tokens).max_length


def _where(train: Node) -> Where:
    execution = train.execution
    return Where(execution["device"], execution["micro_batch_size"], Distributed(**execution["distributed"]))


def _initialised(source: dict[str, Any]) -> dict[str, Any]:
    hidden, layers = source["hidden_size"], source["num_layers"]
    text = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": INITIALISED_VOCABULARY,
        "tie_word_embeddings": True,
    }
    vision = {"hidden_size": hidden // 2, "intermediate_size": hidden, "depth": layers}
    return text | ({} if source["initialise"] == "llama" else {"vision_config": vision})


def _parts(made: Estimate) -> str:
    return ", ".join(f"{name} {_size(size)}" for name, size in made.memory.items() if size)


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def _count(number: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return str(number)
