"""The one call shape of every script: `python scripts/<rule>.py DIRECTORY [--threads N]`.

DIRECTORY holds `config.json`: the resolved configuration and the directories of what the result is made
from. The script works in a folder of its own attempt inside DIRECTORY; when it has succeeded, what it
made is renamed into place and the manifest is written last. A failed attempt leaves nothing under a final
name. `config.json` may name results for this process to make first, so that one import of torch serves them all.
"""

import argparse
import errno
import faulthandler
import gc
import importlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from sft.runtime import code_records, installed, job, manifest, orphan
from sft.runtime.canonical import digest
from sft.runtime.claim import Claim, ClaimError
from sft.runtime.code import RUNTIME_VERSION, SCRIPTS, code_digest, code_digest_again, describe
from sft.runtime.quiet import quiet_environment

CONFIG = "config.json"

# sysexits.h: EX_TEMPFAIL. The stage stopped on request (SIGTERM) in a resumable state; start it again.
EXIT_RESUMABLE = 75


class StageError(Exception):
    """Something the user can mend: its text is shown without a traceback."""


class Settings(Protocol):
    """A model of a rule's configuration (sft.config.nodes); ValueError where a key is unknown, missing or wrong."""

    @classmethod
    def read_back(cls, values: dict[str, Any]) -> Self: ...


Kind = TypeVar("Kind", bound=Settings)


class Stage:
    """What one running script has: its configuration, its inputs, a folder to work in, and a record to fill."""

    def __init__(self, directory: Path, options: argparse.Namespace):
        self.directory = directory
        self.options = options
        node = _read_node(directory)
        self.rule: str = node["rule"]
        self.id: str = node["id"]
        self.config: dict[str, Any] = node["config"]
        self.identity: Any = node["identity"]
        self.first = [Path(directory) for directory in node.get("first", [])]
        self._inputs: dict[str, str] = node["inputs"]
        self.environment: dict[str, str] = {"policy": "strict"} | node.get("environment", {})
        self.code_policy: str = node.get("code_policy", "rerun")
        self.facts: dict[str, Any] = {}
        # sha256 of outputs that were read already, by name: the manifest takes it as it is.
        self.digests: dict[str, str] = {}
        self.attempt = directory / f".attempt-{os.getpid()}"
        self.claim = Claim(directory, self.say)

    def settings(self, kind: type[Kind], of: str = "") -> Kind:
        """The configuration, typed, or that with which the input `of` was made; StageError names a wrong key."""
        config, file = self.config, self.directory / CONFIG
        if of:
            file = self.input(of) / manifest.NAME
            config = (manifest.read(self.input(of)) or {"config": {}})["config"]
        try:
            return kind.read_back(config)
        except ValueError as error:
            raise StageError(f"{file}: {error}") from None

    def input(self, name: str) -> Path:
        """The directory of the input called `name`, as given in `config.json` (relative to the working directory)."""
        return Path(self._inputs[name])

    def inputs(self, prefix: str = "") -> dict[str, Path]:
        """All inputs whose name starts with `prefix`, in the order of `config.json`."""
        return {name: Path(path) for name, path in self._inputs.items() if name.startswith(prefix)}

    def output(self, name: str) -> Path:
        """Where to write the output `name`: inside the attempt, promoted to DIRECTORY/name on success."""
        path = self.attempt / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, **facts: Any) -> None:
        """Add facts (JSON values) to the manifest."""
        self.facts |= facts

    def say(self, text: str) -> None:
        """Write one line to the log (standard error), with the time of day."""
        # The srun that carries the log ends before the trainer when a job is cancelled; the checkpoint matters more.
        with suppress(BrokenPipeError):
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def summary(self, text: str) -> None:
        """The one line that a finished stage prints to the terminal (standard output)."""
        self.facts["summary"] = text


def run_stage(
    work: Callable[[Stage], None],
    doc: str,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Run `work` on the directory named on the command line; the process's exit code says how it went.

    0: done. 1: failed, the reason is on standard error. 75 (`EXIT_RESUMABLE`): stopped on request, start again.
    """
    if sys.stderr is not None:
        faulthandler.enable()  # a crash in a library's C code says in the log which line of Python called it
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="the result's directory; its config.json says what to make")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    if add_options:
        add_options(parser)
    options = parser.parse_args()
    # Importing torch and transformers makes millions of objects that stay; looking through them for garbage at
    # Python's default of every 700 takes a tenth of the time of the import.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    # Numeric libraries read these when they are first imported, which happens inside `work`.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(options.threads)
    try:
        sys.exit(_run(work, options))
    except (StageError, ClaimError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.errno is None or (not full and error.filename is None):
            raise
        # Arrow and writes to an open file do not tell where: then it is where the result is made.
        place, hint = error.filename or options.directory, ". Make room there and start again" if full else ""
        print(f"error: {place}: {os.strerror(error.errno)}{hint}", file=sys.stderr)
        sys.exit(1)
    finally:
        gc.freeze()  # or Python takes a second to look for garbage in torch once more before it ends


def _run(work: Callable[[Stage], None], options: argparse.Namespace) -> int:
    stage = Stage(options.directory, options)
    # Only what downloads may talk to the network; nothing reports home.
    quiet_environment(network=stage.rule.startswith("download_"))
    orphan.die_with_parents()
    # Now, not when each begins: what is imported for the first one stays for the others, whatever is edited meanwhile.
    rules = {stage.rule, *(_read_node(directory)["rule"] for directory in stage.first)}
    codes = {rule: (code_digest(rule), describe(rule)) for rule in rules}
    for directory in stage.first:
        if not _is_current(directory, stage.code_policy):
            before = Stage(directory, options)
            # By name: what this script does is no different when the other one is edited, so its digest is not either.
            _make(before, importlib.import_module(before.rule).make, codes[before.rule], within=stage.id)
    try:
        _make(stage, work, codes[stage.rule])
    except SystemExit as end:
        if end.code == EXIT_RESUMABLE:
            job.come_again(stage.say)
        raise
    return 0


def _make(
    stage: Stage, work: Callable[[Stage], None], made_by: tuple[str, dict[str, Any]], within: str | None = None
) -> None:
    """Make one result, from claimed directory to manifest.

    `made_by`: the digest of the code and what it consists of; `within`: the result whose process makes this one too.
    """
    started, clock, cpu = datetime.now(UTC), time.monotonic(), _cpu_seconds()
    environment, not_as_pinned = _environment(stage)
    code, parts = made_by
    with stage.claim:
        made_from = _verified_inputs(stage.inputs())
        for leftover in stage.directory.glob(".attempt-*"):
            shutil.rmtree(leftover)
        stage.attempt.mkdir()
        _keep_code(stage, code, parts)
        try:
            work(stage)
            if (now := code_digest_again(stage.rule)) != code:
                # Modules are read when they are first needed, so this is of neither: other code than there ever was.
                stage.say("our code was edited meanwhile; this counts as made by other code than there is now")
                code = digest([code, now])
                _keep_code(stage, code, parts)
            outputs = manifest.describe_files(stage.attempt, stage.digests)
            _promote(stage, outputs)
        finally:
            shutil.rmtree(stage.attempt, ignore_errors=True)
        record = {
            "schema": manifest.SCHEMA,
            "rule": stage.rule,
            "id": stage.id,
            "key": manifest.full_key(stage.rule, stage.identity, code, digest(environment), made_from),
            "config": stage.config,
            "identity": stage.identity,
            "identity_digest": digest(stage.identity),
            "code": code,
            "runtime": RUNTIME_VERSION,
            "inputs": made_from,
            "outputs": outputs,
            "content": digest({name: made["sha256"] for name, made in outputs.items()}),
            "versions": manifest.imported_versions(),
            "environment": digest(environment),
            **environment,
            "not_as_pinned": not_as_pinned,
            "git": manifest.git_state(SCRIPTS),
            "machine": manifest.machine(),
            "slurm": job.facts(),
            "threads": stage.options.threads,
            "within": within,
            "started": started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(time.monotonic() - clock, 2),
            "cpu_seconds": round(_cpu_seconds() - cpu, 2),
            "peak_rss_mib": _peak_rss_mib(),
            "facts": stage.facts,
        }
        manifest.write(stage.directory, record)
    line = f"{stage.rule} {stage.id}: {stage.facts.get('summary', 'done')} ({record['wall_seconds']:.0f} s)"
    print(line, flush=True)
    stage.say(line)


def _keep_code(stage: Stage, code: str, parts: dict[str, Any]) -> None:
    try:
        code_records.keep(stage.directory, stage.rule, code, parts)
    except OSError as error:  # for people only: no result is lost for it
        stage.say(f"not kept: what the code was ({error.strerror or error})")


def _environment(stage: Stage) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is installed of what the stage pins, and how it differs; StageError when the policy is not to go on."""
    pins = stage.environment.get("pins")
    if pins is None:  # a node written by hand
        return {"python": manifest.machine()["python"], "packages": {}}, {}
    environment, differences = installed.found(installed.pins_file(pins))
    if differences and stage.environment["policy"] == "strict":
        raise StageError(
            f"{sys.executable} is not the environment that {pins} pins: {installed.words(differences)}. Use that "
            f"environment (make setup, or snakemake --sdm conda), or go on with what is installed, which every result "
            f"will say: snakemake --config environment=record"
        )
    if differences:
        stage.say(f"not as {pins} pins: {installed.words(differences)}")
    return environment, differences


def _is_current(directory: Path, code_policy: str) -> bool:
    """Whether the result in `directory` is what its config.json asks for, made from what is there now.

    And by this code, unless the policy is to keep what other code made.
    """
    made, node = manifest.read(directory), _read_node(directory)
    if made is None or made["identity_digest"] != digest(node["identity"]):
        return False
    if code_policy == "rerun" and made["code"] != code_digest(node["rule"]):
        return False
    above = {name: manifest.read(path) for name, path in node["inputs"].items()}
    used = {name: entry["content"] for name, entry in made["inputs"].items()}
    if used != {name: entry and entry["content"] for name, entry in above.items()}:
        return False
    files = ((directory / name, entry["bytes"]) for name, entry in made["outputs"].items())
    return all(file.is_file() and file.stat().st_size == size for file, size in files)


def _read_node(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise StageError(f"{path} is missing. Snakemake writes it; by hand: sft check --write") from None
    except json.JSONDecodeError as error:
        raise StageError(f"{path} is not valid JSON ({error}). Delete it and start again") from None


def _verified_inputs(inputs: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What the manifest will say of each input; StageError lists all that are not finished, or names a damaged one."""
    manifests = {name: manifest.read(path) for name, path in inputs.items()}
    unfinished = [f"{name} ({inputs[name]})" for name, made in manifests.items() if made is None]
    if unfinished:
        raise StageError(f"not finished (no {manifest.NAME}): {', '.join(unfinished)}. Make them first")
    return {name: _verified(name, inputs[name], made) for name, made in manifests.items() if made}


def _verified(name: str, path: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The facts of an input, after checking that its files still are the ones it was finished with."""
    for relative, expected in made["outputs"].items():
        file = path / relative
        if not file.is_file():
            raise StageError(f"input {name}: {file} is missing. Delete {path / manifest.NAME} to have it made again")
        if file.stat().st_size != expected["bytes"] or manifest.file_digest(file) != expected["sha256"]:
            raise StageError(
                f"input {name}: {file} is not what was written ({expected['bytes']} bytes, sha256 "
                f"{expected['sha256'][:12]}…). Delete {path / manifest.NAME} to have it made again"
            )
    return {"path": path.as_posix(), "key": made["key"], "content": made["content"]}


def _promote(stage: Stage, outputs: dict[str, Any]) -> None:
    """Rename what the attempt made into place, after dropping the manifest that spoke of what was there before."""
    stage.claim.require()
    (stage.directory / manifest.NAME).unlink(missing_ok=True)
    if not outputs:
        raise StageError(f"{stage.rule} made nothing")
    for relative in outputs:
        with (stage.attempt / relative).open("rb") as file:
            os.fsync(file.fileno())
    for entry in sorted(stage.attempt.iterdir()):
        final = stage.directory / entry.name
        if final.is_dir() and not final.is_symlink():
            shutil.rmtree(final)
        entry.replace(final)
    manifest.fsync_directory(stage.directory)


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_rss_mib() -> int:
    # Linux counts in KiB (getrusage(2)); macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
