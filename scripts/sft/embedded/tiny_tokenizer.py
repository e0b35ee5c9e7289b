"""The tokenizer of the small models: byte-level BPE, trained on a fixed text, with the special tokens of a family.

transformers and tokenizers are imported inside the functions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sft.runtime.stage import StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# The words of the default's prompts become one token each; letters and digits stay tokens of their own, and any
# other text falls into bytes. A change here changes every tokenizer, model and result of the default.
TRAINING_TEXT = "Which digit is shown?\nA 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9\nChoices:\nsystem\nuser\nassistant\n"
VOCABULARY = 512  # an upper bound: the text above is learnt whole before


def tiny_tokenizer(special: list[str], **settings: Any) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of the fixed text with these special tokens first, and `settings` of transformers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        [TRAINING_TEXT],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            min_frequency=1,
            show_progress=False,
            # All 256 bytes, sorted: no text is out of the vocabulary.
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, **settings)


def as_qwen2(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same vocabulary in the tokenizer class that transformers loads beside a Qwen2 model, whatever was saved."""
    from transformers import Qwen2Tokenizer

    learnt = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        additional_special_tokens=CHATML_TOKENS,
        chat_template=tokenizer.chat_template,
    )


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a special token; StageError where the tokenizer is another family's."""
    number = tokenizer.get_vocab().get(token)
    if number is None:
        raise StageError(f"the tokenizer has no {token}; a model to initialise needs the processor of its family")
    return number
