"""Chat templates by name: those of ours beside this file, and those that TRL ships for training.

plain              no roles: what is asked, the answer and the end of text, one behind the other
chatml             ChatML, for a tokenizer that has its tokens
smollm2_training   SmolLM2's own text, with marks around what assistant says
trl/<name>         a file of TRL's chat_templates, such as trl/qwen3_training
"""

import difflib
from importlib.util import find_spec
from pathlib import Path

OWN = Path(__file__).parent / "templates"
FROM_TRL = "trl/"


def names() -> list[str]:
    """The names there are."""
    found = sorted(path.stem for path in OWN.glob("*.jinja"))
    folder = _trl_folder()
    return found + sorted(f"{FROM_TRL}{path.stem}" for path in folder.glob("*.jinja")) if folder else found


def text_of(name: str) -> str | None:
    """The template of that name; None where it is no name."""
    folder = _trl_folder() if name.startswith(FROM_TRL) else OWN
    stem = name.removeprefix(FROM_TRL)
    if folder is None or "/" in stem or "." in stem:
        return None
    path = folder / f"{stem}.jinja"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def published(template: str) -> str | None:
    """The template of a model family that `template` is, or is the training form of; None for another one."""
    for name in names():
        # A date that is fixed stands before the template.
        if name.startswith(FROM_TRL) and template.endswith(text_of(name) or "-"):
            return text_of(name.removesuffix("_training")) or text_of(name)
    return None


def nearest(name: str) -> str:
    """A hint for a name that is none: the nearest one, or the names of ours."""
    near = difflib.get_close_matches(name, names(), n=1)
    return f"did you mean {near[0]}?" if near else f"the names are {', '.join(names()[:3])} and trl/…"


def _trl_folder() -> Path | None:
    # find_spec looks for the package without importing it, which would take seconds.
    spec = find_spec("trl")
    return Path(spec.origin).parent / "chat_templates" if spec and spec.origin else None
