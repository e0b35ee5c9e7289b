"""Log-likelihoods of the choices: how probable each choice's letter, or text, is right behind the prompt.

Where the model is to answer with a letter, only the letter is scored, not the choice's text: texts differ in length
and would be compared across lengths. A letter of several tokens counts with the sum over its tokens. Where it is to
answer with the text, the first token is scored, as long as no two choices begin with the same: every choice is one
token then, and the rest of a longer text follows from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def letter_ids(tokenizer: Any, prompt: str, letters: Sequence[str]) -> list[list[int]]:
    """Token ids of each letter as the tokenizer splits it behind `prompt` (a rendered one, generation prompt included).

    Tokenised alone, a letter may become another token (sentencepiece puts a space before it). ValueError when a
    letter joins the prompt's last token, so that it has no tokens of its own, or two letters have the same.
    """
    before = tokenizer(text=prompt, add_special_tokens=False)["input_ids"]
    found = []
    for letter in letters:
        whole = tokenizer(text=prompt + letter, add_special_tokens=False)["input_ids"]
        if whole[: len(before)] != before or len(whole) == len(before):
            raise ValueError(f"the letter {letter} joins the last token of the prompt …{prompt[-20:]!r}")
        found.append(whole[len(before) :])
    if len({tuple(ids) for ids in found}) != len(found):
        raise ValueError(f"two of the letters {', '.join(letters)} have the same tokens")
    return found


def choice_ids(tokenizer: Any, prompt: str, texts: Sequence[str]) -> list[list[int]]:
    """The tokens by which the choices' texts are scored: their first ones where these differ, otherwise all."""
    whole = letter_ids(tokenizer, prompt, texts)
    first = [ids[:1] for ids in whole]
    return first if len({tuple(ids) for ids in first}) == len(first) else whole


def behind_prompts(model: torch.nn.Module, inputs: Mapping[str, Tensor], letters: Sequence[Sequence[int]]) -> Tensor:
    """Log-likelihoods (rows, letters) right behind left-padded prompts, which are put to the model for that."""
    if any(len(letter) != 1 for letter in letters):
        return from_forward(model, inputs, letters)
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits[:, -1]
    return from_first_step(logits.float().cpu(), letters)


def from_first_step(first_logits: Tensor, letters: Sequence[Sequence[int]]) -> Tensor:
    """Log-likelihoods (rows, letters) of single-token letters from the logits (rows, vocabulary) behind the prompts."""
    ids = torch.tensor([letter[0] for letter in letters])
    return first_logits.float().log_softmax(-1)[:, ids]


def from_forward(model: torch.nn.Module, inputs: Mapping[str, Tensor], letters: Sequence[Sequence[int]]) -> Tensor:
    """Log-likelihoods (rows, letters) of letters of any number of tokens: one forward of the batch for each letter."""
    columns = []
    rows, length = inputs["input_ids"].shape
    for letter in letters:
        behind = torch.tensor(letter, device=inputs["input_ids"].device).expand(rows, -1)
        extended = dict(inputs)
        for name, value in inputs.items():
            # Whatever has one entry a token grows with the letter: ids, mask (1), marks of picture tokens (0).
            if value.shape == (rows, length):
                filling = behind if name == "input_ids" else torch.full_like(behind, int(name == "attention_mask"))
                extended[name] = torch.cat([value, filling.to(value.dtype)], dim=1)
            elif value.dim() > 2 and value.shape[:2] == (rows, length):
                # Which tokens see which tiles (cross-attention): the answer sees what the prompt's end sees.
                extended[name] = torch.cat([value, value[:, -1:].expand(-1, len(letter), *value.shape[2:])], dim=1)
        with torch.inference_mode():
            logits = model(**extended).logits[:, length - 1 : -1].float().log_softmax(-1)
        columns.append(logits.gather(2, behind[:, :, None]).sum((1, 2)))
    return torch.stack(columns, dim=1).cpu()
