"""Which module is science and which is runtime, for every module there is; and what passes between the two."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from sft.config.fields import Section
from sft.runtime import code

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "scripts/sft").rglob("*.py"))
RULES = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
CLOSURES = {rule: code.sources(rule) for rule in RULES}


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT / "scripts").as_posix() for path in paths]


# The doors: all that science takes from the runtime, and what comes through. A new one is a decision: what comes
# through must be the node's own configuration and inputs, a pure function of what is handed over, or nothing that
# enters a value.
DOORS = {
    # Configuration, inputs and options of the node; where to write.
    "stage": {"Stage", "StageError", "run_stage", "EXIT_RESUMABLE", "CONFIG"},
    "canonical": {"canonical", "digest"},  # pure
    # Manifests of inputs; pure functions of files.
    "manifest": {"read", "NAME", "write_durably", "file_digest", "describe_files", "fsync_directory"},
    "code": {"SCRIPTS", "code_digest"},  # where programs lie; the run's own digest, for its checkpoints
    "claim": {"Claim", "ClaimError"},  # who writes
    "quiet": {"quiet_environment"},  # no network, no telemetry
    "orphan": {"die_with_parents", "PR_SET_PDEATHSIG"},  # how a process ends
    "job": {"address", "seconds_left"},  # the job's time and place
    "launch": {"rank_command", "rendezvous_here", "shown", "processes_per_node", "STRATEGIES"},
    "attempts": {"begin", "note", "facts"},  # a record
    "cost": {"EnergyMeter", "cost", "visible_devices"},  # a record
    "stop_request": {"StopRequest"},  # when to stop: where it does is a checkpoint, and resumed equals undisturbed
    "time_limit": {"TimeLimit"},
    "out_of_memory": {"OutOfMemoryError", "is_out_of_memory"},  # a smaller micro batch, which is execution
    "training_log": {"TrainingLog"},  # lines for people
    "device_lease": {"lease_cuda"},  # which device, not which kind
    "installed": {"VENV_PYTHON", "installed_by", "words"},  # a record
}


# What science takes from the configuration: typed values, which test_nodes.py holds against config.json, and what a
# device cannot do, which stops a run and makes nothing.
CONFIGURATION = {
    "nodes": {
        *(
            "PrepareSettings",
            "TrainSettings",
            "ConvertSettings",
            "QuestionSettings",
            "PredictSettings",
            "AskBaseSettings",
        ),
        *("ScoreSettings", "BaselineSettings"),
        *("SplitSettings", "MixSettings"),
        *("Shown", "ShownBaseline", "ComparedCell"),
    },
    "training_settings": {"Tokens", "Optimization", "Lora"},
    "label_audit_settings": {"LabelAudit"},
    "split_settings": {"Slice", "Split", "Validation"},
    "fields": {"key_fields"},  # pure: values as they were written
    "exclusions": {"on_device"},
}


def test_every_module_has_a_place() -> None:
    """ValueError from `is_science` for a package that is in neither list of sft/runtime/code.py."""
    assert {code.is_science(path) for path in MODULES} == {True, False}
    assert not set(code.SCIENCE) & set(code.OUTSIDE)


def test_no_digest_holds_a_module_of_the_runtime() -> None:
    held = set().union(*CLOSURES.values())
    assert names([path for path in held if path.parts[-3:-1] == ("sft", "runtime") or not code.is_science(path)]) == []


def test_every_module_of_science_is_in_a_digest_or_is_known_not_to_be() -> None:
    """What no rule imports makes no result; here stand the reasons."""
    held = set().union(*CLOSURES.values())
    programs = [path for path in (ROOT / "scripts").rglob("*.py") if path not in MODULES]
    unheld = [path for path in (*MODULES, *programs) if code.is_science(path) and path not in held]
    assert names(unheld) == UNHELD


# `sft convert` makes models of other trainers' weights, which are nobody's results here.
UNHELD = [
    f"sft/conversion/{name}.py"
    for name in ("checkpoint_kinds", "convert", "likeness", "mapped", "published_names", "state_dicts", "stream")
]


def test_rules_import_only_science_and_the_runtime() -> None:
    """`sft check` and Snakefiles plan; a script knows its directory."""
    allowed = {*code.SCIENCE, "runtime", "packages", "config"}  # of it what CONFIGURATION names
    for rule in RULES:
        found = re.findall(r"^\s*(?:from|import) sft\.(\w+)", (ROOT / f"scripts/{rule}.py").read_text(), re.MULTILINE)
        assert set(found) <= allowed, rule


def test_what_figures_draw_with_counts_for_those_of_users_too() -> None:
    figures = set().union(*(found for rule, found in CLOSURES.items() if rule.startswith("plot_")))
    assert names(sorted(path for path in figures - CLOSURES["plot_own"] if path.parent.name == "reporting")) == []


def test_every_file_of_science_that_is_no_source_is_in_a_digest() -> None:
    """Found by the names that modules say: a path that is put together otherwise is not."""
    held = {path.parent / name for path in set().union(*CLOSURES.values()) for name in code._module(path).files}
    others = {path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert names(sorted(path for path in others - held if code.is_science(path))) == []


def test_modules_of_ours_are_imported_by_statements() -> None:
    """Others are in no digest. Excepted are what starts other scripts, users' own ones, and the verbs of `sft`."""
    by_name = re.compile(r"import_module|__import__|spec_from_file|runpy|(?<![.\w])(?:exec|eval)\(")
    sources = [path for path in (ROOT / "scripts").rglob("*.py") if by_name.search(path.read_text())]
    assert names(sorted(sources)) == ["plot_own.py", "sft/cli/__main__.py", "sft/runtime/stage.py"]


def _taken(path: Path, package: str = "sft.runtime") -> set[tuple[str, str]]:
    """(module, name) of everything that a file takes from a package."""
    tree, taken, modules = ast.parse(path.read_text()), set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            taken |= {(node.module.rpartition(".")[2], alias.name) for alias in node.names}
        assert not (isinstance(node, ast.Import) and any(a.name.startswith(package) for a in node.names)), path
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            taken.add((modules[node.value.id], node.attr))
    return taken


def test_runtime_reaches_science_through_named_doors_only() -> None:
    held = set().union(*CLOSURES.values())
    through = {(*door, names([path])[0]) for path in held for door in _taken(path)}
    unknown = sorted(door for door in through if door[1] not in DOORS.get(door[0], ()))
    assert unknown == []
    used = {door[:2] for door in through}
    assert (
        sorted((module, name) for module, found in DOORS.items() for name in found if (module, name) not in used) == []
    )


def test_of_the_configuration_science_takes_typed_values() -> None:
    held = set().union(*CLOSURES.values())
    assert set().union(*(_taken(path, "sft.config") for path in held)) == {
        (module, name) for module, names in CONFIGURATION.items() for name in names
    }
    for module, taken in CONFIGURATION.items():
        for name in taken - {"on_device", "key_fields"}:
            kind = getattr(importlib.import_module(f"sft.config.{module}"), name)
            own = {key for key, value in vars(kind).items() if callable(value) and not key.startswith("_")}
            assert issubclass(kind, Section), name
            assert not own, f"{name} computes: {own}"


def edits(text: str) -> dict[str, str]:
    """Edits of a module that can change no value, made at places that it has."""
    tree, lines = ast.parse(text), text.splitlines(keepends=True)
    made = {"comment": text + "\n# a comment\n", "blank lines": "\n\n" + text}

    def spliced(node: ast.expr, new: str) -> str:
        first, last = node.lineno - 1, node.end_lineno - 1
        start, end = (
            lines[first].encode()[: node.col_offset].decode(),
            lines[last].encode()[node.end_col_offset :].decode(),
        )
        return "".join([*lines[:first], start + new + end, *lines[last + 1 :]])

    if ast.get_docstring(tree) is not None:
        made["docstring"] = spliced(tree.body[0].value, '"""Another text."""')
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            first = node.exc.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                made["error"] = spliced(first, "'another text'")
        if isinstance(node, ast.FunctionDef) and node.returns is not None and not node.decorator_list:
            made["annotation"] = spliced(node.returns, "'object'")
    return made


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT / "scripts").as_posix())
def test_edits_of_every_module(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runtime none counts; of science texts, comments and annotations do not, and a statement does."""
    if not code.is_science(path):
        assert not any(path in closure for closure in CLOSURES.values())
        return
    text = path.read_text()
    copy = path.with_name(path.name)  # imports and files beside it are looked for from here

    def body(changed: str) -> str:
        monkeypatch.setattr(Path, "read_bytes", lambda self: changed.encode() if self == copy else original(self))
        made = code._full(code._module.__wrapped__(copy))
        monkeypatch.setattr(Path, "read_bytes", original)
        return made

    original = Path.read_bytes
    before = body(text)
    assert {name for name, changed in edits(text).items() if body(changed) != before} == set()
    assert body(text + "\nADDED = 1e-8\n") != before
