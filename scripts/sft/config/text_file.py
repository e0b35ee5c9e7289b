"""Reading a text file that a person wrote: UTF-8, of bounded size, printable."""

from pathlib import Path

from yaml.reader import Reader

from sft.config.errors import ConfigError, Problem
from sft.terms.nearest import nearest


def read_text(path: Path, maximum_bytes: int) -> str:
    """The text of the file at `path`; ConfigError with the line where it is none."""

    def refuse(line: int | None, message: str, fix: str) -> ConfigError:
        return ConfigError([Problem(path, line, "", message, fix)])

    try:
        with path.open("rb") as file:
            data = file.read(maximum_bytes + 1)
    except FileNotFoundError:
        beside = {other.stem: other.name for other in path.parent.glob(f"*{path.suffix}")}
        near = nearest(path.stem, beside)
        fix = f"Did you mean {path.with_name(beside[near])}?" if near else "Check the path"
        raise refuse(None, "no such file", fix) from None
    except OSError as error:
        raise refuse(None, f"cannot be read ({error.strerror})", "Check the path and its permissions") from None
    if len(data) > maximum_bytes:
        raise refuse(
            None,
            f"larger than {maximum_bytes // 2**20} MiB",
            "A configuration is written by hand; keep data in files of their own",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refuse(line, f"not UTF-8 text (byte 0x{data[error.start]:02x})", "Save the file as UTF-8") from None
    unprintable = Reader.NON_PRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise refuse(line, f"a control character (U+{ord(unprintable.group()):04X})", "Remove it")
    return text
