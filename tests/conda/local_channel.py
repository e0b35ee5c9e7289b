"""Packs the Python that runs this, and its pip, as two conda packages of a channel in a folder: for tests only.

BASE/bin/python tests/conda/local_channel.py DIRECTORY     # BASE as made by local_conda.py
"""

import hashlib
import io
import json
import platform
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from conda_package_streaming.create import conda_builder

MOMENT = 1_700_000_000  # of every file and package, so that packing again gives the same bytes
XY = "python{}.{}".format(*sys.version_info)
# Not needed by any stage, or of this machine.
LEFT_OUT = {"test", "tests", "idlelib", "turtledemo", "tkinter", "lib2to3", "ensurepip", "site-packages", "__pycache__"}

# Path in the environment -> its bytes, or the target of a symbolic link.
Files = dict[str, bytes | str]


def main(channels: Path) -> None:
    channel = channels / "conda-forge"
    python = pack(
        channel / "linux-64",
        {"name": "python", "version": platform.python_version(), "depends": ["__glibc >=2.17"]},
        dict(python_files(Path(sys.base_prefix))),
    )
    pip = pack(
        channel / "noarch",
        {"name": "pip", "version": metadata.version("pip"), "depends": ["python >=3.9"], "noarch": "python"},
        dict(pip_files()),
        {"noarch": {"type": "python", "entry_points": ["pip = pip._internal.cli.main:main"]}},
    )
    index(channel / "linux-64", python)
    index(channel / "noarch", pip)
    # `nodefaults` in an environment file is an order to conda 24.7; newer ones look for a channel of that name.
    index(channels / "nodefaults/linux-64", {})
    index(channels / "nodefaults/noarch", {})


def index(folder: Path, packages: dict[str, dict]) -> None:
    """Write what a channel's folder says of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"info": {"subdir": folder.name}, "packages": {}, "packages.conda": packages, "repodata_version": 1}
    (folder / "repodata.json").write_text(json.dumps(content))


def pack(folder: Path, about: dict, files: Files, link: dict | None = None) -> dict[str, dict]:
    """Write one `.conda` file into `folder`; its entry in the index."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"build": "0_local", "build_number": 0, "subdir": folder.name, "timestamp": MOMENT * 1000} | about
    stem = f"{record['name']}-{record['version']}-{record['build']}"
    paths = [
        {
            "_path": name,
            "path_type": "softlink" if isinstance(content, str) else "hardlink",
            "sha256": hashlib.sha256(_bytes(content)).hexdigest(),
            "size_in_bytes": len(_bytes(content)),
        }
        for name, content in files.items()
    ]
    info = {"index.json": record, "paths.json": {"paths": paths, "paths_version": 1}, "about.json": {}}
    if link:
        info["link.json"] = link | {"package_metadata_version": 1}
    members = files | {f"info/{name}": json.dumps(content).encode() for name, content in info.items()}
    members["info/files"] = "".join(f"{name}\n" for name in files).encode()
    with conda_builder(stem, folder, compression_level=3) as package:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.mtime = MOMENT
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                package.addfile(member)
            else:
                member.size, member.mode = len(content), 0o755 if name.startswith("bin/") or ".so" in name else 0o644
                package.addfile(member, io.BytesIO(content))
    made = (folder / f"{stem}.conda").read_bytes()
    sums = {"md5": hashlib.md5(made).hexdigest(), "sha256": hashlib.sha256(made).hexdigest(), "size": len(made)}
    return {f"{stem}.conda": record | sums}


def python_files(prefix: Path) -> Iterator[tuple[str, bytes | str]]:
    """The interpreter, its shared library and the standard library below `prefix`."""
    program = (prefix / "bin" / XY).read_bytes()
    # The program finds libpython by an absolute path; make that relative to itself, in place.
    ours, anywhere = f"{prefix}/lib\0".encode(), b"$ORIGIN/../lib\0"
    yield f"bin/{XY}", program.replace(ours, anywhere.ljust(len(ours), b"\0"))
    yield "bin/python", XY
    yield "bin/python3", XY
    for library in sorted(prefix.glob(f"lib/lib{XY}.so*")):
        if not library.is_symlink():
            yield f"lib/{library.name}", library.read_bytes()
    for file in sorted((prefix / "lib" / XY).rglob("*")):
        parts = file.relative_to(prefix / "lib" / XY).parts
        wanted = not LEFT_OUT & set(parts) and not parts[0].startswith("config-") and file.suffix != ".a"
        if wanted and file.is_file():
            yield file.relative_to(prefix).as_posix(), file.read_bytes()
    yield f"lib/{XY}/site-packages/README.txt", b"packed for tests\n"


def pip_files() -> Iterator[tuple[str, bytes]]:
    """pip as it is installed beside the running Python."""
    for file in metadata.files("pip"):
        if (
            ".." not in file.parts
            and "__pycache__" not in file.parts
            and file.name not in ("RECORD", "direct_url.json")
        ):
            yield f"site-packages/{file.as_posix()}", file.locate().read_bytes()


def _bytes(content: bytes | str) -> bytes:
    return b"" if isinstance(content, str) else content


if __name__ == "__main__":
    main(Path(sys.argv[1]))
