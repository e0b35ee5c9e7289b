"""What kind of model a Hugging Face directory holds, read from its config.json alone (no torch)."""

import json
from pathlib import Path
from typing import Any

from sft.runtime.stage import StageError


def model_config(directory: Path | str) -> dict[str, Any]:
    """The model's config.json; StageError when there is none or it is not JSON."""
    path = Path(directory) / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path} is missing: {directory} is not a Hugging Face model directory") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageError(f"{path} is not valid JSON ({error}). Fetch the model again") from None


def is_vision(directory: Path | str) -> bool:
    """Whether the model of `directory` takes pictures: its config.json has a vision tower (`vision_config`)."""
    return isinstance(model_config(directory).get("vision_config"), dict)
