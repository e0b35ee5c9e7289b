"""What train_model.py tells its ranks, and what they tell it: files in a folder that only they use.

The ranks share nothing else: no lock, no manifest, no attempt of their own. `plan.json` is written before they
start; `stop` asks them to stop; `training` says that there is something to lose; a rank that fails leaves
`error-<rank>.json`, and the first one leaves `outcome.json` when all is well. Imports nothing heavy.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sft.runtime.stage import StageError

PLAN = "plan.json"


@dataclass(frozen=True)
class RanksPlan:
    """The folder of one launch."""

    folder: Path

    def write(self, run: Path, options: argparse.Namespace, content: dict[str, Any]) -> Path:
        """Write what the ranks are to do; returns the plan's path."""
        self.folder.mkdir()
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        text = json.dumps({"run": str(run), "options": plain, **content}, indent=1)
        (self.folder / PLAN).write_text(text + "\n")
        return self.folder / PLAN

    def read(self) -> dict[str, Any]:
        """What `write` wrote; `options` is a namespace again."""
        plan = json.loads((self.folder / PLAN).read_text())
        options = argparse.Namespace(**plan["options"])
        options.directory = Path(options.directory)
        return plan | {"options": options}

    def ask_to_stop(self) -> None:
        """Ask all ranks to stop after the step in progress."""
        (self.folder / "stop").touch()

    @property
    def stop_is_asked(self) -> bool:
        """Whether somebody asked."""
        return (self.folder / "stop").exists()

    def note_training(self) -> None:
        """From here on a stop saves a checkpoint."""
        (self.folder / "training").touch()

    @property
    def is_training(self) -> bool:
        """Whether the first step of this attempt has begun."""
        return (self.folder / "training").exists()

    def fail(self, rank: int, message: str, kind: str) -> None:
        """Leave the reason for which a rank ends; `kind` is "stage" (a StageError), "memory" or "fault"."""
        (self.folder / f"error-{rank}.json").write_text(json.dumps({"message": message, "kind": kind}))

    def finish(self, outcome: dict[str, Any]) -> None:
        """Leave what was reached; only after that an exit code of 0 means success."""
        (self.folder / "outcome.json").write_text(json.dumps(outcome))

    def outcome(self) -> dict[str, Any] | None:
        """What `finish` left, or None."""
        path = self.folder / "outcome.json"
        return json.loads(path.read_text()) if path.exists() else None

    def errors(self) -> list[dict[str, str]]:
        """The reasons that ranks gave, in the order in which they gave them: what comes first made the others fail."""
        paths = sorted(self.folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text()) for path in paths]

    def raise_error(self, code: int) -> NoReturn:
        """The StageError that says why the ranks ended with `code`."""
        errors = self.errors()
        if not errors:
            raise StageError(
                f"the processes of the run ended (exit code {code}) and gave no reason; what they wrote is above. A "
                f"process that was killed says so there (Signal 9: it took too much memory, most often)"
            )
        told = [error["message"] for error in errors if error["kind"] == errors[0]["kind"] != "fault"]
        raise StageError("\n".join(dict.fromkeys(told or [errors[0]["message"]])))
