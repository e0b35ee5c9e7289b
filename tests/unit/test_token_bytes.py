"""Tokens found by their bytes are where a fast tokenizer says that they are; where they cannot be, that is told."""

import json
import random
from typing import Any

import pytest

from sft.data.tokens import masking
from sft.data.tokens.rendering import Rendered
from sft.data.tokens.token_bytes import TokenBytes, token_bytes_of

WORDS = [
    "Which",
    " digit",
    "\n",
    " A 0 B 1",
    "Ünïcödé",
    " 文字",
    "🙂",
    "<|im_end|>",
    "<|im_start|>user\n",
    "  ",
    "\t\u00a0",
    "é",
]


@pytest.fixture(scope="module")
def llama() -> Any:
    from sft.embedded.tiny_models import make_processor

    return make_processor("llama")


def test_ids_and_places_are_those_of_the_tokenizer(llama: Any) -> None:
    made = token_bytes_of(llama)
    draw = random.Random(0)
    texts = ["".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(300)]
    told = llama(text=texts, add_special_tokens=False)
    assert made.encode(texts) == told["input_ids"]
    for number, (text, ids) in enumerate(zip(texts, told["input_ids"], strict=True)):
        places, encoding = made.places(ids, text), masking._Told(told[number])
        for character in range(1, len(text)):
            at = places.starting_at(character)
            if encoding.starting_at(character) is not None:
                assert at == encoding.starting_at(character)
            if at is not None:
                # What is before it are whole tokens, and those of that text.
                assert llama.decode(ids[:at], clean_up_tokenization_spaces=False) == text[:character]
            assert places.holding(character) == encoding.holding(character)


def test_a_text_that_is_normalised_first_goes_the_slow_way(llama: Any) -> None:
    from tokenizers import normalizers

    changed = type(llama)(tokenizer_object=type(llama.backend_tokenizer).from_str(llama.backend_tokenizer.to_str()))
    changed.backend_tokenizer.normalizer = normalizers.NFC()
    made = token_bytes_of(changed)
    text = "e\u0301 is é"  # two characters that NFC makes one of
    ids = changed(text=text, add_special_tokens=False)["input_ids"]
    assert made.places(ids, text) is None
    rows = [("r", Rendered(text, "", ((5, len(text)),), ("s é",)))]
    [slow], [fast] = masking.mask_rows(changed, rows, {0}), masking.mask_rows(changed, rows, {0}, made)
    assert slow == fast


def test_only_byte_level_tokenizers_have_bytes(llama: Any) -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    assert token_bytes_of(PreTrainedTokenizerFast(tokenizer_object=words)) is None
    words.decoder = decoders.Metaspace()
    assert token_bytes_of(PreTrainedTokenizerFast(tokenizer_object=words)) is None
    assert isinstance(token_bytes_of(llama), TokenBytes)
    assert json.loads(llama.backend_tokenizer.to_str())["decoder"]["type"] == "ByteLevel"
