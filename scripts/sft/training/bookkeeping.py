"""What the trainer of a run keeps beside the model and the optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sft.runtime.stop_request import StopRequest
from sft.runtime.time_limit import TimeLimit
from sft.runtime.training_log import TrainingLog
from sft.training.accounting import Accounting
from sft.training.checkpoint import Checkpoints
from sft.training.metrics_stream import MetricsStream
from sft.training.tensorboard_mirror import TensorboardMirror

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Bookkeeping:
    """What a run keeps beside the model: where its state goes, what was counted, when to do what."""

    global_batch_size: int
    total_steps: int
    kept_steps: list[int]
    eval_steps: int | None
    logging_steps: int
    checkpoint_seconds: float
    keep_optimizer: bool
    provenance: dict[str, Any]
    checkpoints: Checkpoints
    stream: MetricsStream | None  # of the main process only, like the mirror
    mirror: TensorboardMirror | None
    log: TrainingLog
    stop: StopRequest
    time_limit: TimeLimit
    accounting: Accounting
    probe_inputs: dict[str, Tensor]
    effective: dict[str, Any] = field(default_factory=dict)


@dataclass
class Step:
    """The optimizer step in progress."""

    ids: list[str]
    tokens: int
    supervised: int
    losses: list[Tensor] = field(default_factory=list)
    # Over all ranks, once the step's passes are done:
    loss: float = math.nan
    grad_norm: float = math.nan  # before clipping
    learning_rate: float = math.nan
