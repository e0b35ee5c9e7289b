"""Memory that a job asks for where `execution.memory_mib` does not say: from the size of its model.

A training on a CPU takes what is estimated for each of its processes. With a device, the weights pass through the
host's memory once a process, are held against their files there, and stay only where they are offloaded to. What a
conversion takes was measured (benchmarks/conversion_memory.py: both methods, float32 and bfloat16): 3.2 to 5.7 times
the weights in float32, and 400 MiB. A job that still runs out of memory is tried again with twice as much.

Imports nothing heavy. A model that is not here yet has no size until it is; Snakemake asks when a job is to start.
"""

from sft.config.nodes import TrainSettings
from sft.estimates.estimate import MIB, Shape
from sft.estimates.run_estimates import of_shape, shape_of, with_models
from sft.planning.node import Node
from sft.runtime.launch import processes_per_node
from sft.terms.strategies import GATHERED, SHARDED_WEIGHTS

LEAST_MIB = 2000
STEP_MIB = 100
# PyTorch with its CUDA libraries and what they map of a device, in the host's memory.
BESIDE_DEVICE = 3000 * MIB
CONVERSION_TIMES, CONVERSION_OF_QUANTISED_TIMES = 6, 8
LIBRARIES = 1000 * MIB


def job_mib(node: Node) -> int:
    """MiB for the first attempt of a training, conversion or prediction, and what its process makes before it."""
    if (asked := node.execution["memory_mib"]) is not None:
        return asked
    shape = shape_of(node)
    least = LEAST_MIB
    if node.execution["device"] == "cuda" and node.rule != "convert_checkpoint":
        least = BESIDE_DEVICE // MIB
    if shape is None:
        return least
    size = {"train_model": _training, "convert_checkpoint": _conversion}.get(node.rule, _prediction)(node, shape)
    return max(least, -(-round(size / MIB) // STEP_MIB) * STEP_MIB, *map(job_mib, with_models(node)))


def _training(node: Node, shape: Shape) -> float:
    distributed, weights = node.execution["distributed"], 4 * shape.parameters
    strategy, here = distributed["strategy"], processes_per_node(distributed)
    if node.execution["device"] == "cuda":
        each = BESIDE_DEVICE + 1.25 * weights
        if distributed.get("offload"):
            each += 3 * weights / distributed["processes"]  # of Adam: two moments, and the weights
    else:
        each = 1.1 * of_shape(node, shape).device_bytes + (weights if strategy in SHARDED_WEIGHTS else 0)
    agents = LIBRARIES if strategy != "none" else 0  # train_model.py and torchrun, which wait
    return here * each + agents + (weights if strategy in GATHERED else 0)


def _conversion(node: Node, shape: Shape) -> float:
    quantised = node.inputs["run"].settings(TrainSettings).training.quantization != "none"
    return 4 * shape.parameters * (CONVERSION_OF_QUANTISED_TIMES if quantised else CONVERSION_TIMES) + LIBRARIES


def _prediction(node: Node, shape: Shape) -> float:
    beside = BESIDE_DEVICE if node.execution["device"] == "cuda" else LIBRARIES
    return 2 * 4 * shape.parameters + beside
