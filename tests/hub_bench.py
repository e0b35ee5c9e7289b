"""A stand-in of the hub with a data set, a cache, and the real command that downloads: for tests of sources."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from hub_stand_in import HubStandIn

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
CARD = "---\nlicense: cc-by-4.0\n---\n# Questions\n"
TOKEN = "hf_madeUpTokenOfATest"
NAME = "someone/questions"


@cache
def tables() -> dict[str, bytes]:
    """Two shards, of 440 kB and of 1 kB."""
    made = {}
    for name, rows in (("train-0.parquet", 3000), ("test-0.parquet", 5)):
        ids = [f"{name}-{i}" for i in range(rows)]
        text = [hashlib.sha256(i.encode()).hexdigest() for i in ids]
        content = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"id": ids, "prompt": text, "completion": text}), content)
        made[f"data/{name}"] = content.getvalue()
    return made


def publish_tiny_llama(folder: Path) -> Path:
    """Put a tiny Llama into `folder` as people publish them: two shards of weights, tokenizer, template, card, and
    another format below."""
    from sft.embedded.tiny_models import make_model, make_processor

    tokenizer = make_processor("llama")
    source = {"initialise": "llama", "hidden_size": 64, "num_layers": 1, "initializer_range": 0.02, "seed": 1}
    make_model(source, tokenizer).save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "original").mkdir()
    (folder / "original/consolidated.safetensors").write_bytes(b"another format")
    return folder


class Bench:
    """A stand-in with a data set, a cache, and the command that downloads."""

    def __init__(self, folder: Path, hub: HubStandIn):
        self.folder, self.hub, self.cache = folder, hub, folder / "cache"

    def config(self, name: str, source: dict[str, Any], rule: str = "download_dataset", **more: Any) -> Path:
        directory = self.folder / name
        directory.mkdir(exist_ok=True)
        source = {"revision": "main", "files": None} | source if "hub" in source else source
        config = {"source": source} | more.pop("config", {})
        node = {"rule": rule, "id": name, "config": config, "identity": config, "inputs": {}} | more
        (directory / "config.json").write_text(json.dumps(node))
        return directory

    def command(self, directory: Path, rule: str = "download_dataset", **options: Any) -> dict[str, Any]:
        environment = os.environ | self.hub.environment(self.cache, **options)
        return {"args": [sys.executable, SCRIPTS / f"{rule}.py", directory], "env": environment, "text": True}

    def run(self, name: str, source: dict[str, Any], **options: Any) -> subprocess.CompletedProcess:
        return subprocess.run(**self.command(self.config(name, source), **options), capture_output=True)

    def make(self, name: str, source: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The manifest of a download that must succeed."""
        done = self.run(name, source, **options)
        assert done.returncode == 0, done.stderr
        return json.loads((self.folder / name / "manifest.json").read_text())

    def refused(self, name: str, source: dict[str, Any], **options: Any) -> str:
        """The error of a download that must fail and leave nothing that looks finished."""
        done = self.run(name, source, **options)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert {path.name for path in (self.folder / name).iterdir()} <= {"config.json", ".lock"}
        error = done.stderr[done.stderr.index("error: ") :].strip()
        assert "\n" not in error
        return error

    def head(self) -> str:
        """The commit of the data set's branch main."""
        return self.hub.repositories["dataset", NAME].branches["main"]


@contextmanager
def open_bench(folder: Path) -> Iterator[Bench]:
    hub = HubStandIn(tokens=(TOKEN,))
    try:
        hub.publish("dataset", NAME, tables() | {"README.md": CARD, "dataset_infos.json": "{}"}, tag="v1")
        yield Bench(folder, hub)
    finally:
        hub.close()
