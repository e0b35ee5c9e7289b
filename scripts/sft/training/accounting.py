"""What a run has consumed so far; stored in every checkpoint, so that the counts survive a resume."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAME = "progress.json"


@dataclass
class Accounting:
    """Counts since step 0, and the part of the logging window that has not been written yet.

    `codes` lists which code and package versions trained which steps: `{from_step, code, versions}`.
    """

    tokens_seen: int = 0
    supervised_tokens_seen: int = 0
    rows_seen: int = 0
    window_loss_sum: float = 0.0
    window_tokens: int = 0
    codes: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, checkpoint: Path) -> "Accounting":
        """The accounting stored in a checkpoint directory."""
        return cls(**json.loads((checkpoint / NAME).read_text()))

    def save(self, checkpoint: Path) -> None:
        # Floats are written with the digits that read back as the same bits (json uses repr).
        (checkpoint / NAME).write_text(json.dumps(asdict(self), indent=1) + "\n")

    def add_step(self, tokens: int, supervised: int, rows: int, loss: float) -> None:
        """Count one optimizer step; `loss` is its mean over the supervised tokens."""
        self.tokens_seen += tokens
        self.supervised_tokens_seen += supervised
        self.rows_seen += rows
        self.window_loss_sum += loss * supervised
        self.window_tokens += supervised

    def take_window(self) -> tuple[float, int]:
        """`(sum of token losses, tokens)` since the last call, as steps were added."""
        window = self.window_loss_sum, self.window_tokens
        self.window_loss_sum, self.window_tokens = 0.0, 0
        return window

    def note_code(self, step: int, code: str, versions: dict[str, str]) -> None:
        """Remember that from `step` on this code trains, where it is not the one that trained before."""
        if not self.codes or (self.codes[-1]["code"], self.codes[-1]["versions"]) != (code, versions):
            self.codes.append({"from_step": step, "code": code, "versions": versions})


def samples_digest(ids: list[str]) -> str:
    """16 hexadecimal digits that stand for the sample ids of one optimizer step, in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
