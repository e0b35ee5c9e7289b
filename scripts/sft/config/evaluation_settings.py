"""`evaluation:` and `execution:` of an experiment."""

from typing import Literal

from sft.config.fields import Integer, Number, Section, Truth, execution, identity


class Asked(Section):
    """How a model is asked."""

    split: Literal["test", "validation"] = identity(
        "test",
        describe="the rows that are asked; settings are chosen on validation, results are of test",
        added_with="test",
    )
    max_new_tokens: Integer = identity(32, describe="longest generated answer", unit="tokens", gt=0)
    batch_size: Integer = identity(
        32, describe="rows at once; part of the result, since batching moves the last bits", unit="rows", gt=0
    )


class Evaluation(Asked):
    """How a model is asked, and which of a run's models are."""

    checkpoints: Literal["all", "last"] = identity("all", describe="evaluate every kept checkpoint, or the last")
    dtype: Literal["float32", "bfloat16"] = identity("float32", describe="type of the converted model's weights")


class Execution(Section):
    """Where and how; nothing here changes a result."""

    device: Literal["auto", "cpu", "cuda"] = execution("auto", describe="auto: a CUDA device where there is one")
    threads: Integer = execution(1, describe="CPU threads of a training or prediction job", gt=0)
    micro_batch_size: Integer | None = execution(
        None, describe="rows at once on a device; must divide global_batch_size; null: all", unit="rows", gt=0
    )
    memory_mib: Integer | None = execution(
        None,
        describe="memory asked for a training, conversion or prediction job; null: by the size of its model",
        unit="MiB",
        gt=0,
    )
    device_memory_mib: Integer | None = execution(
        None, describe="memory of a device; runs that are estimated to need more are refused", unit="MiB", gt=0
    )
    runtime_minutes: Integer | None = execution(
        None,
        describe="time asked for a training or prediction job; null: by its arithmetic, on a slow machine",
        unit="minutes",
        gt=0,
    )
    keep_optimizer: Truth = execution(False, describe="keep optimizer states of finished runs")
    environment: Literal["strict", "record"] = execution(
        "strict", describe="where installed versions are not the pinned ones: stop, or go on and say so in every result"
    )
    code_policy: Literal["rerun", "warn", "accept"] = execution(
        "rerun", describe="what to do with results that an older version of our code made"
    )
    rerun_budget_minutes: Number = execution(
        60,
        describe="most that results which new code of ours makes again may have taken; above it nothing starts",
        unit="device-minutes",
        ge=0,
    )
