"""From an example to chat text and tokens, the one way that training and evaluation share.

The pictures come first in the user turn, then the prompt; the completion is the assistant turn. A processor
(with pictures) and a tokenizer (without) are both accepted as `processor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sft.stage import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin


def takes_pictures(processor: ProcessorMixin | PreTrainedTokenizerBase) -> bool:
    """Whether the processor has an image processor."""
    return hasattr(processor, "image_processor")


def messages(example: Mapping[str, Any], typed: bool) -> list[dict[str, Any]]:
    """The prompt's messages of a canonical example. `typed`: content as [{"type": "image"}, ..., {"type": "text"}].

    Templates of models that take pictures read typed content; those of text models read strings.
    """
    turns = []
    if example.get("system"):
        turns.append({"role": "system", "content": _content(example["system"], 0, typed)})
    turns.append({"role": "user", "content": _content(example["prompt"], len(example["images"]), typed)})
    return turns


def prompt_text(processor: ProcessorMixin | PreTrainedTokenizerBase, example: Mapping[str, Any]) -> str:
    """The rendered prompt up to where the assistant's answer starts; one placeholder for each picture."""
    return processor.apply_chat_template(
        messages(example, takes_pictures(processor)), tokenize=False, add_generation_prompt=True
    )


def texts(processor: ProcessorMixin | PreTrainedTokenizerBase, example: Mapping[str, Any]) -> tuple[str, str]:
    """(prompt, prompt + completion + end of turn), rendered. StageError when the first does not begin the second."""
    typed = takes_pictures(processor)
    turns = [*messages(example, typed), {"role": "assistant", "content": _content(example["completion"], 0, typed)}]
    prompt, full = prompt_text(processor, example), processor.apply_chat_template(turns, tokenize=False)
    if not full.startswith(prompt):
        raise StageError(
            f"id {example['id']}: the chat template renders the prompt otherwise when an answer follows "
            f"(…{prompt[-60:]!r} is not in …{full[-120:]!r}), so the answer cannot be told from it. "
            f"Give another template with model.chat_template"
        )
    return prompt, full


def encode(
    processor: ProcessorMixin | PreTrainedTokenizerBase, rendered: Sequence[str], images: Sequence[Sequence[Any]]
) -> list[list[int]]:
    """Token ids of rendered texts, the picture placeholders expanded by the processor as it does for the model.

    `images`: the decoded pictures (PIL) of each text. No special tokens are added: the template wrote them.
    ValueError when a text holds another number of placeholders than it has pictures.
    """
    encoded: list[list[int]] = [[] for _ in rendered]
    for has_pictures in (True, False):
        rows = [i for i, of_row in enumerate(images) if bool(of_row) is has_pictures]
        if rows:
            arguments: dict[str, Any] = {"text": [rendered[i] for i in rows], "add_special_tokens": False}
            if has_pictures:
                arguments["images"] = [list(images[i]) for i in rows]
            for i, ids in zip(rows, processor(**arguments)["input_ids"], strict=True):
                encoded[i] = list(ids)
    return encoded


def _content(text: str, pictures: int, typed: bool) -> Any:
    if not typed:
        return text
    return [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
