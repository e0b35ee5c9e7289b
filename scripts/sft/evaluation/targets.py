"""What is to be said, as the template writes it, and how well a model predicts it: each token, given all before it.

Tokens are those that training learns (the answer with what the template puts behind it; of a text all but the first,
which nothing precedes). They are scored of rows without choices: answers in one's own words, and text without roles.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sft.data.read import pictures, turns
from sft.data.tokens import masking, rendering
from sft.data.tokens.answer_format import written_text_of
from sft.data.tokens.label_counts import IGNORED
from sft.data.tokens.rendering import Rendered
from sft.models.loading import tokenizer_of


@dataclass(frozen=True)
class TargetScore:
    """Of one row's target: its tokens, how many of them were the likeliest ones, the sum of their log-likelihoods."""

    tokens: int
    right: int
    log_likelihood: float


class Targets:
    """The targets of a split, in batches of `size` rows of like length, padded on the right."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], processor: Any, size: int):
        self.rows = {row["id"]: row for row in rows}
        self.processor, self.tokenizer = processor, tokenizer_of(processor)
        self.size = size
        texts = rendering.rendered_rows(processor, rows, "last")
        made = [(row["id"], text) for row, text in zip(rows, texts, strict=True)]
        closing = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        masked = masking.mask_rows(self.tokenizer, made, closing)
        self.rendered: dict[str, Rendered] = dict(made)
        self.masked = {
            row["id"]: masking.closed(self.tokenizer, tokens) if turns.is_text(row) else tokens
            for row, tokens in zip(rows, masked, strict=True)
        }

    def end_ids(self) -> set[int]:
        """The tokens that the template puts behind the answers: those that end a turn."""
        places = ((one.ids, one.ends[-1]) for one in self.masked.values())
        return {ids[place] for ids, place in places if place is not None}

    def text(self, identifier: str) -> str:
        """What is to be written behind a row's prompt, up to the token that ends the turn."""
        return written_text_of(self.tokenizer, self.masked[identifier])

    def head(self, said: Mapping[str, str], usual: str) -> str:
        """What the template writes between the prompt and the answer; the same for all rows.

        `said`: answers by id; `usual`: what it writes before any answer (AnswerFormat.head).
        ValueError where it differs between rows, or a row does not show its answer.
        """
        heads: dict[str, str] = {}
        for identifier, row in self.rendered.items():
            head = usual
            if not row.full.removeprefix(row.prompt).startswith(usual + said[identifier]):
                head, found, _ = self.text(identifier).rpartition(said[identifier])
                if not found:
                    raise ValueError(f"id {identifier}: the chat template shows the answer changed")
            heads.setdefault(head, identifier)
        if len(heads) > 1:
            raise ValueError(f"ids {', '.join(heads.values())}: the chat template writes differently before the answer")
        return next(iter(heads))

    def tokens(self, identifier: str) -> int:
        """How many tokens of a row's target are asked for."""
        return sum(label != IGNORED for label in self.masked[identifier].labels()[1:])

    def score(self, model: torch.nn.Module, device: str, without: set[str]) -> dict[str, TargetScore]:
        """The scores of all rows but `without` (rows that could not be asked), by id."""
        found = {}
        for ids, inputs, learned in self._batches(without):
            inputs = {name: value.to(device) for name, value in inputs.items()}
            counts = learned[:, 1:].to(device)
            with torch.inference_mode():
                # Only where the target is: a picture's placeholder may have no logit at all (Llama-3.2-Vision).
                logits = model(**inputs, use_cache=False).logits[:, :-1][counts].float()
            wanted = inputs["input_ids"][:, 1:][counts]
            likelihoods = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0].double()
            right = logits.argmax(-1) == wanted
            lengths = counts.sum(1).tolist()
            for id, of_row, hits in zip(ids, likelihoods.split(lengths), right.split(lengths), strict=True):
                found[id] = TargetScore(len(of_row), int(hits.sum()), float(of_row.sum()))
        return found

    def _batches(self, without: set[str]) -> Iterator[tuple[list[str], dict[str, torch.Tensor], torch.Tensor]]:
        ids = [id for id in self.rows if id not in without]
        ids.sort(key=lambda id: (bool(self.rows[id]["images"]), len(self.masked[id].ids), id))
        split = next((n for n, id in enumerate(ids) if self.rows[id]["images"]), len(ids))
        for part in (ids[:split], ids[split:]):
            for first in range(0, len(part), self.size):
                yield self._batch(part[first : first + self.size])

    def _batch(self, ids: list[str]) -> tuple[list[str], dict[str, torch.Tensor], torch.Tensor]:
        masked = [self.masked[id] for id in ids]
        if self.rows[ids[0]]["images"]:
            decoded = [[pictures.decode(image) for image in self.rows[id]["images"]] for id in ids]
            made = self.processor(
                text=[self.rendered[id].full for id in ids],
                images=decoded,
                padding=True,
                padding_side="right",
                return_tensors="pt",
                add_special_tokens=False,
            )
            inputs = {name: value for name, value in made.items() if torch.is_tensor(value)}
            lengths = inputs["attention_mask"].sum(1).tolist()
            placeholders = {self.processor.image_token_id}
            masked = [
                masking.expand(one, inputs["input_ids"][i, : lengths[i]].tolist(), placeholders, ids[i])
                for i, one in enumerate(masked)
            ]
            inputs.pop("token_type_ids", None)
        else:
            length = max(len(one.ids) for one in masked)
            pad = self.tokenizer.pad_token_id
            rows = [list(one.ids) + [pad if pad is not None else 0] * (length - len(one.ids)) for one in masked]
            mask = [[1] * len(one.ids) + [0] * (length - len(one.ids)) for one in masked]
            inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
        width = inputs["input_ids"].shape[1]
        learned = torch.tensor([list(one.labels()) + [IGNORED] * (width - len(one.ids)) for one in masked]) != IGNORED
        return ids, inputs, learned
