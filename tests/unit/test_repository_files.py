"""What contributors and the repository's host read: forms, workflows, hooks. They are valid and call what is there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
WORDS = [
    ROOT / name for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", ".github/pull_request_template.md")
]


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


def make_faults(command: str) -> list[str]:
    """What a `make TARGET VARIABLE=…` names that the Makefile does not have."""
    program, *words = command.split()
    assert program == "make"
    faults = []
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:( |$)"
        if not re.search(pattern, MAKEFILE, re.MULTILINE):
            faults.append(f"{command}: the Makefile has no {name}")
    return faults


def pinned(*files: str) -> set[str]:
    lines = "\n".join((ROOT / file).read_text() for file in files)
    return set(re.findall(r"^([A-Za-z0-9_.-]+)==", lines, re.MULTILINE))


def ci_steps() -> list[str]:
    return re.findall(r"^step (.+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)


def test_what_make_test_leaves_out_is_run_by_test_all_and_that_by_ci():
    recipes = dict(re.findall(r"^(test|test-all): .*\n\t(.*)$", MAKEFILE, re.MULTILINE))
    assert '-m "not gpu and not thorough" --cov' in recipes["test"]
    assert recipes["test-all"] == recipes["test"].replace(" and not thorough", "")
    assert any(step.startswith("make test-all") for step in ci_steps())


def test_ci_runs_commands_that_the_makefile_has():
    assert "make test-all SLURM=install" in ci_steps()
    assert "make lint" in ci_steps()
    assert [fault for step in ci_steps() for fault in make_faults(step)] == []
    assert make_faults("make nonsense SLURMM=install") != []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_is_there(path: Path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow[True])  # YAML 1.1 reads the key `on` as true
    commands = []
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), "an action of somebody else, or no version"
            else:
                commands.append(step["run"])
    assert commands
    for command in commands:
        if command.startswith("make "):
            assert make_faults(command) == []
        else:
            shell, script = command.split()
            assert shell == "bash"
            assert (ROOT / script).is_file()


def test_the_main_branch_gets_everything():
    commands = [step.get("run") for step in read(ROOT / ".github/workflows/ci.yml")["jobs"]["everything"]["steps"]]
    assert "bash .ci/run" in commands


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_have_the_shape_that_the_host_wants(path: Path):
    form = read(path)
    assert set(form) == {"name", "description", "labels", "body"}
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked) > 0
    assert any(field.get("validations", {}).get("required") for field in asked)
    for field in form["body"]:
        assert field["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        attributes = field["attributes"]
        if field["type"] == "markdown":
            assert set(field) == {"type", "attributes"}
            assert set(attributes) == {"value"}
        else:
            assert attributes["label"]
            assert set(field) <= {"type", "id", "attributes", "validations"}
        if field["type"] in ("dropdown", "checkboxes"):
            assert attributes["options"]


def test_there_is_a_form_for_faults_wishes_and_questions():
    assert [path.stem for path in FORMS] == ["bug", "feature", "question"]
    assert read(ROOT / ".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": False}
    bug = {field.get("id") for field in read(FORMS[0])["body"]}
    assert {"config", "check", "manifest"} <= bug


@pytest.mark.parametrize("path", [*FORMS, *WORDS], ids=lambda path: path.name)
def test_texts_name_commands_and_files_that_are_there(path: Path):
    text = path.read_text()
    for command in re.findall(r"`(make [^`\n]+)`", text):
        assert make_faults(re.sub(r"=(\"[^\"]*\"|…|\.\.\.)", "=x", command)) == []
    for verb in re.findall(r"`(?:\.venv/bin/)?sft ([a-z]+)", text):
        assert (ROOT / f"scripts/sft/cli/{verb}.py").exists(), f"{path.name}: there is no sft {verb}"
    made = set(re.findall(r"<!-- new file: ([\w/.]+)", text))  # by who follows CONTRIBUTING's recipes
    paths = r"\b((?:scripts|tests|docs|workflow|config|tools)/[\w./-]*\w|[A-Z_]{5,}\.md)\b(?![<*])"
    for name in set(re.findall(paths, text)) - made:
        assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_nobody_is_named_who_may_not_exist():
    for path in WORDS:
        assert not re.search(r"[\w.]+@[\w-]+\.\w+|https?://(?!keepachangelog|semver)", path.read_text()), path.name


def test_hooks_call_the_tools_of_make_lint():
    config = read(ROOT / ".pre-commit-config.yaml")
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}, "a second place with versions"
    tools = pinned("requirements-test.in", "requirements.in")
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE).group(1)
    for hook in hooks:
        assert hook["language"] == "system"
        program, *arguments = hook["entry"].split()
        if program == "make":
            assert make_faults(hook["entry"]) == []
        elif program == "python3":
            assert (ROOT / arguments[0]).is_file()
        else:
            name = program.removeprefix(".venv/bin/")
            assert name in tools
            assert f"$(BIN)/{name} " in lint
    assert set(config["default_install_hook_types"]) == {"pre-commit", "commit-msg"}
    assert [hook["entry"] for hook in hooks if hook.get("stages") == ["commit-msg"]] == [
        "python3 tools/check_commit.py"
    ]


def test_updates_are_proposed_where_versions_are_chosen_and_nowhere_else():
    config = json.loads((ROOT / ".github/renovate.json").read_text())
    (pattern,) = config["pip_requirements"]["managerFilePatterns"]
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.suffix in (".in", ".txt", ".yaml")]
    there = {file for file in files if re.search(pattern.strip("/"), file) and not file.startswith(".")}
    assert there == {path.name for path in ROOT.glob("requirements*.in")}
    known = pinned(*sorted(there))
    named = {name for rule in config["packageRules"] for name in rule["matchPackageNames"]}
    assert named <= known
    assert all(make_faults(command) == [] for command in re.findall(r"`(make [^`]+)`", json.dumps(config)))
