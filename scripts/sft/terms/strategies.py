"""Ways to spread one run over processes, by what they keep where."""

DEEPSPEED = ("deepspeed_zero2", "deepspeed_zero3")
# Strategies with which every weight is on one device only.
SHARDED_WEIGHTS = ("fsdp2", "fsdp1", "deepspeed_zero3")
# Strategies whose first process puts the whole weights together, in the host's memory, to save them.
GATHERED = ("fsdp1", *DEEPSPEED)
# Strategies that keep the optimizer's state in shards.
SHARDED_STATE = ("fsdp2", "fsdp1", *DEEPSPEED)
