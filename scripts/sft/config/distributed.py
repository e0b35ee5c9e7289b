"""`training.distributed:` over how many processes, and how, one optimisation is spread.

None of it is part of a result's identity, like the micro batch size: the global batch is what the configuration says,
the same rows are in the same steps, and what remains is the order of additions (relative differences of 1e-7 in
float32). What ran is in the run's effective.json and manifest.
"""

from typing import Literal

from pydantic import model_validator

from sft.config.errors import FieldError
from sft.config.fields import Integer, Section, Truth, execution
from sft.terms.strategies import DEEPSPEED


class Distributed(Section):
    """Processes that train one run together."""

    strategy: Literal["none", "ddp", "fsdp2", "fsdp1", "deepspeed_zero2", "deepspeed_zero3"] = execution(
        "none",
        describe="none: one process; ddp: a whole copy of the model in each; fsdp2, fsdp1, deepspeed_zero3: weights, "
        "gradients and optimizer in shards; deepspeed_zero2: gradients and optimizer only",
    )
    processes: Integer = execution(1, describe="processes over all nodes; one a device", unit="processes", gt=0)
    nodes: Integer = execution(1, describe="machines that the processes are spread over evenly", unit="nodes", gt=0)
    offload: Truth = execution(
        False, describe="DeepSpeed: the optimizer's state is in the host's memory; with deepspeed_zero3, weights too"
    )

    @model_validator(mode="after")
    def _fits(self) -> "Distributed":
        if self.strategy == "none" and (self.processes > 1 or self.nodes > 1):
            fix = "Write strategy: ddp (the model fits a device) or fsdp2 (it does not)"
            raise FieldError("strategy", f"none is one process, not {self.processes} on {self.nodes} nodes", fix)
        if self.processes % self.nodes:
            raise FieldError(
                "processes", f"{self.processes} cannot be spread evenly over {self.nodes} nodes", "Give a multiple"
            )
        if self.offload and self.strategy not in DEEPSPEED:
            raise FieldError(
                "offload", f"is DeepSpeed's, and strategy is {self.strategy}", "Remove it, or use deepspeed_zero3"
            )
        return self
