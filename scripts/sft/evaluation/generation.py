"""Greedy generation, and the logits of its first step.

Greedy and nothing else: a published model's generation_config.json may ask for sampling, a repetition penalty or
a temperature, and an accuracy that depends on them is that of another decoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sft.data.tokens.answer_format import decoded


@dataclass
class Generated:
    """What a batch was answered.

    `texts`: without control tokens. `written`: with them, up to the token that ended the turn. `ended`: whether each
    ended its turn. `first_logits`: of the first step, of shape (rows, vocabulary), float32, on the CPU.
    """

    texts: list[str]
    written: list[str]
    ended: list[bool]
    first_logits: Tensor


def set_greedy(model: torch.nn.Module, tokenizer: Any, ends: list[int], max_new_tokens: int) -> None:
    """Make greedy decoding until one of `ends` the only thing that `model.generate` does."""
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    # Passed to generate() instead, it would be completed from the model's own settings, penalties included.
    model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=pad
    )


def generate(model: torch.nn.Module, tokenizer: Any, inputs: Mapping[str, Tensor]) -> Generated:
    """Continue every row of left-padded `inputs` (see `set_greedy`)."""
    first = _first_step()
    with torch.inference_mode():
        ids = model.generate(**inputs, logits_processor=[first])
    new = ids[:, inputs["input_ids"].shape[1] :].cpu()
    ends = torch.tensor(model.generation_config.eos_token_id)
    ended = torch.isin(new, ends)
    # Behind the end stands padding; a row without one is whole.
    lengths = torch.where(ended.any(1), ended.int().argmax(1), new.shape[1]).tolist()
    return Generated(
        texts=tokenizer.batch_decode(new, skip_special_tokens=True),
        written=[decoded(tokenizer, row[:length]) for row, length in zip(new.tolist(), lengths, strict=True)],
        ended=ended.any(1).tolist(),
        first_logits=first.logits.float().cpu(),
    )


def _first_step() -> Any:
    """A logits processor that changes nothing and keeps the first logits it sees."""
    from transformers import LogitsProcessor

    class FirstStep(LogitsProcessor):
        logits: Tensor | None = None

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            if self.logits is None:
                self.logits = scores.clone()
            return scores

    return FirstStep()
