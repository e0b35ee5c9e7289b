"""A sentence encoder: texts to vectors of length 1, whose products say how near two texts are in meaning.

Models in the form of sentence-transformers are read: a Hugging Face encoder, mean pooling over its tokens, and the
length that its `sentence_bert_config.json` names. That package itself is not needed.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sft.runtime.stage import StageError

ROWS_PER_BATCH = 64


def check(directory: Path) -> None:
    """StageError unless `directory` holds an encoder of the kind that is read here."""
    for name in ("modules.json", "config.json", "1_Pooling/config.json"):
        if not (directory / name).is_file():
            raise StageError(f"encoder {directory}: no {name}; a model in the form of sentence-transformers has it")
    pooling = json.loads((directory / "1_Pooling/config.json").read_text(encoding="utf-8"))
    chosen = [mode for mode, used in pooling.items() if mode.startswith("pooling_mode") and used]
    if chosen != ["pooling_mode_mean_tokens"]:
        raise StageError(f"encoder {directory}: its pooling is {', '.join(chosen)}; only the mean of tokens is read")
    if not list(directory.glob("*.safetensors")):
        raise StageError(f"encoder {directory}: no weights as safetensors; convert them first")


class Encoder:
    """The encoder in `directory`, on the CPU."""

    def __init__(self, directory: Path):
        from transformers import AutoModel, AutoTokenizer

        check(directory)
        settings = directory / "sentence_bert_config.json"
        self.max_length = json.loads(settings.read_text())["max_seq_length"] if settings.is_file() else 256
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModel.from_pretrained(directory).eval()
        self.size: int = self.model.config.hidden_size
        self.truncated = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float16 (texts, size), each of length 1; zeros for an empty text. Longer texts are cut and counted."""
        import torch

        made: np.ndarray = np.zeros((len(texts), self.size), np.float16)
        # Texts of one length together: less padding.
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        for start in range(0, len(order), ROWS_PER_BATCH):
            chosen = order[start : start + ROWS_PER_BATCH]
            ids = self.tokenizer([texts[i] for i in chosen])["input_ids"]
            self.truncated += sum(len(row) > self.max_length for row in ids)
            batch = self.tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = self.model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                mean = (states * mask).sum(1) / mask.sum(1)
                made[chosen] = torch.nn.functional.normalize(mean, dim=1).numpy().astype(np.float16)
        return made
